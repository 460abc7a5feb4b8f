// gRPC server that calls another one, and the client alone.
//
//	rpc -port PORT [-downstream HOST:PORT] [-next W|L] [-mode direct|child] [-cert FILE -key FILE] [-ca FILE] [-delay-ms N]
//	rpc -mode client -downstream HOST:PORT -kinds USCB -requests N -connections N -streams N [-warm N] [-ca FILE]
//
// The service load.Work has methods whose names say what they must answer: U7 is unary and ends with status 7, S7 streams three
// answers, C7 takes three messages, B7 takes and gives three in turn. W123 and L123 are unary and carry the number of a request:
// L answers it after a random delay of at most -delay-ms, W asks the next server first, for the method of -next.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

var (
	port       = flag.Int("port", 0, "port on 127.0.0.1")
	downstream = flag.String("downstream", "", "address of the next server")
	next       = flag.String("next", "L", "method that W calls there")
	mode       = flag.String("mode", "direct", "direct, child or client")
	cert       = flag.String("cert", "", "certificate to serve TLS with")
	key        = flag.String("key", "", "its key")
	ca         = flag.String("ca", "", "certificate that the next server's is signed by; without it there is no TLS")
	delay      = flag.Float64("delay-ms", 0, "longest delay of L")
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A connection to the next server.
func dial() *grpc.ClientConn {
	security := insecure.NewCredentials()
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			fail(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		security = credentials.NewTLS(&tls.Config{RootCAs: pool})
	}
	conn, err := grpc.NewClient("passthrough:///"+*downstream, grpc.WithTransportCredentials(security))
	if err != nil {
		fail(err)
	}
	return conn
}

func main() {
	flag.Parse()
	if *mode == "client" {
		load()
		return
	}
	options := []grpc.ServerOption{grpc.MaxConcurrentStreams(1000)}
	if *cert != "" {
		security, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			fail(err)
		}
		options = append(options, grpc.Creds(security))
	}
	if *downstream != "" {
		following = dial()
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fail(err)
	}
	server := grpc.NewServer(options...)
	server.RegisterService(service(), nil)
	fmt.Println("ready")
	fail(server.Serve(listener))
}
