package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var (
	kinds       = flag.String("kinds", "USCB", "first letters of the methods that the client calls in turn")
	first       = flag.Int64("first", 1, "number of the client's first request")
	requests    = flag.Int64("requests", 100, "how many requests the client makes")
	connections = flag.Int("connections", 1, "over how many connections")
	streams     = flag.Int("streams", 1, "how many at once on each")
	warm        = flag.Int("warm", 0, "how many requests (U0 to U16 in turn) on each connection before it says ready, which are not counted")
	hold        = flag.Duration("hold", 0, "how long a bidirectional stream waits between its messages")
)

// Waits for a line on standard input, makes the calls, and says how many were made and how many ended as they must. Call I is
// of kind I mod kinds and, but for W and L, ends with status (I / kinds) mod 17.
func load() {
	conns := make([]*grpc.ClientConn, *connections)
	for i := range conns {
		conns[i] = dial()
		for j := 0; j < *warm; j++ {
			code := j % 17
			if err := unary(conns[i], fmt.Sprintf("U%d", code), codes.Code(code)); err != nil {
				fail(err)
			}
		}
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	var turn, good int64
	var group sync.WaitGroup
	for i := 0; i < *connections**streams; i++ {
		conn := conns[i%len(conns)]
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				n := atomic.AddInt64(&turn, 1) - 1
				if n >= *requests {
					return
				}
				if err := one(conn, n); err != nil {
					fmt.Fprintln(os.Stderr, err)
				} else {
					atomic.AddInt64(&good, 1)
				}
			}
		}()
	}
	group.Wait()
	fmt.Printf("done %d %d\n", *requests, good)
}

func one(conn *grpc.ClientConn, n int64) error {
	count := int64(len(*kinds))
	kind := (*kinds)[n%count]
	code := codes.Code(n / count % 17)
	name := fmt.Sprintf("%c%d", kind, code)
	switch kind {
	case 'U':
		return unary(conn, name, code)
	case 'W', 'L':
		return unary(conn, string(kind)+strconv.FormatInt(*first+n, 10), codes.OK)
	default:
		return stream(conn, kind, name, code)
	}
}

// Whether it ended as it must.
func check(name string, err error, code codes.Code) error {
	if got := status.Code(err); got != code {
		return fmt.Errorf("%s ended with %v: %v", name, got, err)
	}
	return nil
}

func unary(conn *grpc.ClientConn, name string, code codes.Code) error {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(context.Background(), prefix+name, wrapperspb.String(name), out)
	if err == nil && out.Value != name {
		return fmt.Errorf("%s answered %q", name, out.Value)
	}
	return check(name, err, code)
}

func stream(conn *grpc.ClientConn, kind byte, name string, code codes.Code) error {
	desc := &grpc.StreamDesc{ServerStreams: kind != 'C', ClientStreams: kind != 'S'}
	// Streams that end with an error must be given up, or they are kept.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := conn.NewStream(ctx, desc, prefix+name)
	if err != nil {
		return check(name, err, code)
	}
	message, out := wrapperspb.String(name), new(wrapperspb.StringValue)
	sends, receives := 1, messages
	if kind != 'S' {
		sends = messages
	}
	if kind == 'C' {
		receives = 1
	}
	got := 0
	for i := 0; i < sends; i++ {
		if err := s.SendMsg(message); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", name, err)
		}
		if kind == 'B' {
			if err := s.RecvMsg(out); err != nil {
				return check(name, err, code)
			}
			got++
			time.Sleep(*hold)
		}
	}
	if err := s.CloseSend(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for {
		err := s.RecvMsg(out)
		if err == nil {
			got++
			if kind == 'C' {
				return check(name, nil, code)
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err == nil && got != receives {
			return fmt.Errorf("%s gave %d messages", name, got)
		}
		return check(name, err, code)
	}
}
