// JDK HTTP server with a pool of 64 threads; a handler calls the next server on its own thread.
//
// java App.java PORT [DOWNSTREAM]

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

public class App {
    static String downstream;

    static byte[] call(String number) throws IOException {
        HttpURLConnection connection =
            (HttpURLConnection) new URL(downstream + "/leaf/" + number).openConnection();
        try (var in = connection.getInputStream()) {
            return in.readAllBytes();
        }
    }

    static void handle(HttpExchange exchange) throws IOException {
        String[] parts = exchange.getRequestURI().getPath().split("/");
        byte[] data = "ok\n".getBytes(StandardCharsets.US_ASCII);
        if (parts.length > 2 && parts[1].equals("work") && downstream != null) {
            data = call(parts[2]);
        } else if (parts.length > 2 && parts[1].equals("leaf")) {
            data = parts[2].getBytes(StandardCharsets.US_ASCII);
        }
        exchange.sendResponseHeaders(200, data.length);
        try (var out = exchange.getResponseBody()) {
            out.write(data);
        }
    }

    public static void main(String[] arguments) throws IOException {
        System.setProperty("sun.net.httpserver.nodelay", "true");
        System.setProperty("http.maxConnections", "64");
        downstream = arguments.length > 1 ? arguments[1] : null;
        var server = HttpServer.create(
            new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 512);
        server.createContext("/", App::handle);
        server.setExecutor(Executors.newFixedThreadPool(64));
        server.start();
        System.out.println("ready");
    }
}
