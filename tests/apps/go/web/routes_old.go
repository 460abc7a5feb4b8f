//go:build !go1.22

package main

import "net/http"

// Patterns have no names before Go 1.22.
func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/work/", work)
	mux.HandleFunc("/leaf/", leaf)
	mux.HandleFunc("/status/", status)
	mux.HandleFunc("/", other)
	return mux
}
