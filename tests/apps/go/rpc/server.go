package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	prefix = "/load.Work/"
	// Highest number of a request.
	numbers = 40000
	// Messages of a stream.
	messages = 3
)

var following *grpc.ClientConn

func service() *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: "load.Work", HandlerType: nil}
	unary := func(name string) {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: answer})
	}
	stream := func(name string, server, client bool, handler grpc.StreamHandler) {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: name, Handler: handler, ServerStreams: server, ClientStreams: client,
		})
	}
	for code := 0; code <= 16; code++ {
		unary(fmt.Sprintf("U%d", code))
		stream(fmt.Sprintf("S%d", code), true, false, give)
		stream(fmt.Sprintf("C%d", code), false, true, take)
		stream(fmt.Sprintf("B%d", code), true, true, both)
	}
	for n := 1; n <= numbers; n++ {
		unary(fmt.Sprintf("W%d", n))
		unary(fmt.Sprintf("L%d", n))
	}
	return desc
}

// The letter and the number of a method.
func parts(ctx context.Context) (string, int) {
	method, _ := grpc.Method(ctx)
	name := strings.TrimPrefix(method, prefix)
	n, _ := strconv.Atoi(name[1:])
	return name[:1], n
}

// The error that a method ends with; none for status 0.
func end(code int) error {
	if code == 0 {
		return nil
	}
	return status.Error(codes.Code(code), "as asked")
}

func answer(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	kind, n := parts(ctx)
	switch kind {
	case "U":
		if err := end(n); err != nil {
			return nil, err
		}
	case "L":
		if *delay > 0 {
			time.Sleep(time.Duration(rand.Float64() * *delay * float64(time.Millisecond)))
		}
	case "W":
		if following != nil {
			return ask(ctx, n, in)
		}
	}
	return in, nil
}

func ask(ctx context.Context, n int, in *wrapperspb.StringValue) (any, error) {
	call := func() (any, error) {
		out := new(wrapperspb.StringValue)
		err := following.Invoke(ctx, prefix+*next+strconv.Itoa(n), in, out)
		return out, err
	}
	if *mode != "child" {
		return call()
	}
	type result struct {
		out any
		err error
	}
	done := make(chan result)
	go func() {
		out, err := call()
		done <- result{out, err}
	}()
	r := <-done
	return r.out, r.err
}

func give(_ any, stream grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	for i := 0; i < messages; i++ {
		if err := stream.SendMsg(in); err != nil {
			return err
		}
	}
	_, n := parts(stream.Context())
	return end(n)
}

func take(_ any, stream grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	for {
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	_, n := parts(stream.Context())
	if err := end(n); err != nil {
		return err
	}
	return stream.SendMsg(in)
}

func both(_ any, stream grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	for {
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(in); err != nil {
			return err
		}
	}
	_, n := parts(stream.Context())
	return end(n)
}
