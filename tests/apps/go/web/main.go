// Server with net/http that calls another one with http.Client, and the client alone.
//
//	web -port PORT [-downstream URL] [-mode MODE] [-http 1|2] [-cert FILE -key FILE] [-ca FILE] [-delay-ms N]
//	web -mode client -downstream URL -path /work/{n} -requests N -at-once N [-connections N] [-http 1|2] [-ca FILE]
//
// /leaf/N answers N after a random delay of at most -delay-ms. /work/N calls /leaf/N downstream in the way of the mode
// (modes.go); proxy sends the request on as one of /leaf/N. /status/S answers with status S. With a certificate it speaks TLS. With -http 2 it
// speaks HTTP/2, in clear too (prior knowledge and upgrade); what it calls is spoken to in the same version.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

var (
	port       = flag.Int("port", 0, "port on 127.0.0.1")
	downstream = flag.String("downstream", "", "base URL of the next server")
	mode       = flag.String("mode", "direct", "how /work calls, or client")
	version    = flag.Int("http", 1, "version of HTTP, 1 or 2")
	cert       = flag.String("cert", "", "certificate to serve TLS with")
	key        = flag.String("key", "", "its key")
	ca         = flag.String("ca", "", "certificate that the next server's is signed by")
	delay      = flag.Float64("delay-ms", 0, "longest delay of /leaf")
)

func pause(most float64) {
	time.Sleep(time.Duration(rand.Float64() * most * float64(time.Millisecond)))
}

func work(w http.ResponseWriter, r *http.Request) {
	if *mode == "proxy" {
		proxy.ServeHTTP(w, r)
		return
	}
	data, err := modes[*mode](number(r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	answer(w, data)
}

func leaf(w http.ResponseWriter, r *http.Request) {
	// An answer before the end of the request would reset its stream.
	io.Copy(io.Discard, r.Body)
	if *delay > 0 {
		pause(*delay)
	}
	answer(w, []byte(number(r)))
}

func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(number(r))
	if err != nil || code < 200 || code > 599 {
		code = http.StatusBadRequest
	}
	w.WriteHeader(code)
}

func other(w http.ResponseWriter, _ *http.Request) { answer(w, []byte("ok\n")) }

func answer(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "text/plain")
	w.Write(data)
}

// The second part of the path.
func number(r *http.Request) string {
	parts := strings.SplitN(r.URL.Path, "/", 4)
	if len(parts) < 3 {
		return ""
	}
	return parts[2]
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	flag.Parse()
	if *mode == "client" {
		load()
		return
	}
	if modes[*mode] == nil && *mode != "proxy" {
		fail(fmt.Errorf("there is no mode %q", *mode))
	}
	prepare()
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fail(err)
	}
	fmt.Println("ready")
	server := &http.Server{Handler: routes()}
	if *cert != "" {
		if *version == 1 {
			server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		fail(server.ServeTLS(listener, *cert, *key))
	}
	if *version == 2 {
		server.Handler = h2c.NewHandler(server.Handler, &http2.Server{MaxConcurrentStreams: 1000})
	}
	fail(server.Serve(listener))
}
