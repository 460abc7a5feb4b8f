package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

var (
	path        = flag.String("path", "/leaf/{n}", "path of the client's requests")
	first       = flag.Int64("first", 1, "number of the client's first request")
	requests    = flag.Int64("requests", 100, "how many requests the client makes")
	atOnce      = flag.Int("at-once", 1, "how many at once")
	connections = flag.Int("connections", 1, "of HTTP/2")
	warm        = flag.Int("warm", 0, "how many requests before it says ready, which are not counted")
)

// Trusts -ca only.
func trust() *tls.Config {
	config := &tls.Config{}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			fail(err)
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	return config
}

// Speaks -http.
func transport() http.RoundTripper {
	if *version == 2 && !strings.HasPrefix(*downstream, "https:") {
		return &http2.Transport{
			AllowHTTP: true,
			DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
				var dialer net.Dialer
				return dialer.DialContext(ctx, network, address)
			},
		}
	}
	t := &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512, TLSClientConfig: trust()}
	if *version == 2 {
		t.ForceAttemptHTTP2 = true
	} else {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return t
}

// Waits for a line on standard input, makes the requests, and says how many were made and how many had the right answer.
func load() {
	clients := make([]*http.Client, *connections)
	for i := range clients {
		clients[i] = &http.Client{Transport: transport()}
	}
	for i := 0; i < *warm; i++ {
		if _, err := get(clients[i%len(clients)], *downstream+"/"); err != nil {
			fail(err)
		}
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	var turn, good int64
	var group sync.WaitGroup
	for i := 0; i < *atOnce; i++ {
		group.Add(1)
		client := clients[i%len(clients)]
		go func() {
			defer group.Done()
			for {
				n := atomic.AddInt64(&turn, 1)
				if n > *requests {
					return
				}
				number := strconv.FormatInt(*first+n-1, 10)
				data, err := get(client, *downstream+strings.ReplaceAll(*path, "{n}", number))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
				} else if strings.Contains(string(data), number) {
					atomic.AddInt64(&good, 1)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf("done %d %d\n", *requests, good)
}
