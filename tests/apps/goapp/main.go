// Server with net/http that calls another one with http.Client.
//
//	goapp -port PORT [-downstream URL] [-mode direct|child|both] [-delay-ms N]
//
// direct: the handler's goroutine calls; child: a goroutine of the handler does; both: a sleep before and after the call.
// /leaf/N answers N after a random delay of at most -delay-ms.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

var (
	port       = flag.Int("port", 0, "port on 127.0.0.1")
	downstream = flag.String("downstream", "", "base URL of the next server")
	mode       = flag.String("mode", "direct", "direct, child or both")
	delay      = flag.Float64("delay-ms", 0, "longest delay of /leaf")
	client     = &http.Client{Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256}}
)

func pause() {
	time.Sleep(time.Duration(rand.Float64() * float64(10*time.Millisecond)))
}

func call(number string) ([]byte, error) {
	answer, err := client.Get(*downstream + "/leaf/" + number)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func work(number string) ([]byte, error) {
	switch *mode {
	case "child":
		type result struct {
			data []byte
			err  error
		}
		done := make(chan result)
		go func() {
			data, err := call(number)
			done <- result{data, err}
		}()
		r := <-done
		return r.data, r.err
	case "both":
		pause()
		data, err := call(number)
		pause()
		return data, err
	default:
		return call(number)
	}
}

func handle(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	data := []byte("ok\n")
	switch {
	case len(parts) > 2 && parts[1] == "work" && *downstream != "":
		var err error
		if data, err = work(parts[2]); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	case len(parts) > 2 && parts[1] == "leaf":
		if *delay > 0 {
			time.Sleep(time.Duration(rand.Float64() * *delay * float64(time.Millisecond)))
		}
		data = []byte(parts[2])
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Write(data)
}

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	fmt.Fprintln(os.Stderr, http.Serve(listener, http.HandlerFunc(handle)))
}
