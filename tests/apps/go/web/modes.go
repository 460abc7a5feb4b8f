package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

var (
	client *http.Client
	proxy  *httputil.ReverseProxy
	jobs   chan job
	queue  chan job
	list   struct {
		sync.Mutex
		some *sync.Cond
		jobs []job
	}
)

// What a handler gives to a worker of the pool.
type job struct {
	number string
	done   chan result
}

type result struct {
	data []byte
	err  error
}

// How /work/N comes to its call of /leaf/N.
var modes = map[string]func(number string) ([]byte, error){
	// The handler's goroutine calls.
	"direct": call,
	// A goroutine of the handler calls.
	"child": func(number string) ([]byte, error) {
		return in(func() ([]byte, error) { return call(number) })
	},
	// A goroutine of a goroutine of the handler calls.
	"grandchild": func(number string) ([]byte, error) {
		return in(func() ([]byte, error) {
			return in(func() ([]byte, error) { return call(number) })
		})
	},
	// Five calls at once, /leaf/N/1 to /leaf/N/5.
	"errgroup": func(number string) ([]byte, error) {
		group, _ := errgroup.WithContext(context.Background())
		var parts [5][]byte
		for i := range parts {
			i := i
			group.Go(func() (err error) {
				parts[i], err = call(fmt.Sprintf("%s/%d", number, i+1))
				return err
			})
		}
		err := group.Wait()
		return bytes.Join(parts[:], nil), err
	},
	// One of 64 goroutines that live as long as the program calls; it gets the number over a channel.
	"pool": func(number string) ([]byte, error) {
		done := make(chan result, 1)
		jobs <- job{number, done}
		r := <-done
		return r.data, r.err
	},
	// The same with jobs that lie in a buffer, and workers that wait for several channels.
	"queue": func(number string) ([]byte, error) {
		done := make(chan result, 1)
		queue <- job{number, done}
		r := <-done
		return r.data, r.err
	},
	// The same with jobs in a list behind a mutex.
	"list": func(number string) ([]byte, error) {
		done := make(chan result, 1)
		list.Lock()
		list.jobs = append(list.jobs, job{number, done})
		list.Unlock()
		list.some.Signal()
		r := <-done
		return r.data, r.err
	},
	// A timer's function calls.
	"timer": func(number string) ([]byte, error) {
		done := make(chan result, 1)
		time.AfterFunc(time.Millisecond, func() {
			data, err := call(number)
			done <- result{data, err}
		})
		r := <-done
		return r.data, r.err
	},
	// The handler's goroutine calls, with a sleep before and after it.
	"both": func(number string) ([]byte, error) {
		pause(10)
		data, err := call(number)
		pause(10)
		return data, err
	},
}

func in(f func() ([]byte, error)) ([]byte, error) {
	done := make(chan result)
	go func() {
		data, err := f()
		done <- result{data, err}
	}()
	r := <-done
	return r.data, r.err
}

func call(number string) ([]byte, error) { return get(client, *downstream+"/leaf/"+number) }

func get(client *http.Client, url string) ([]byte, error) {
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", answer.StatusCode, data)
	}
	return data, err
}

func prepare() {
	client = &http.Client{Transport: transport()}
	if *downstream == "" {
		return
	}
	next, err := url.Parse(*downstream)
	if err != nil {
		fail(err)
	}
	proxy = httputil.NewSingleHostReverseProxy(next)
	proxy.Transport = client.Transport
	direct := proxy.Director
	proxy.Director = func(r *http.Request) {
		direct(r)
		r.URL.Path = "/leaf/" + number(r)
	}
	if *mode == "queue" {
		queue = make(chan job, 16)
		quit := make(chan bool)
		for i := 0; i < 64; i++ {
			go func() {
				for {
					select {
					case job := <-queue:
						data, err := call(job.number)
						job.done <- result{data, err}
					case <-quit:
						return
					}
				}
			}()
		}
	}
	if *mode == "list" {
		list.some = sync.NewCond(&list)
		for i := 0; i < 64; i++ {
			go func() {
				for {
					list.Lock()
					for len(list.jobs) == 0 {
						list.some.Wait()
					}
					job := list.jobs[0]
					list.jobs = list.jobs[1:]
					list.Unlock()
					data, err := call(job.number)
					job.done <- result{data, err}
				}
			}()
		}
	}
	if *mode == "pool" {
		jobs = make(chan job)
		for i := 0; i < 64; i++ {
			go func() {
				for job := range jobs {
					data, err := call(job.number)
					job.done <- result{data, err}
				}
			}()
		}
	}
}
