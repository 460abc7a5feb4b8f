//go:build go1.22

//go:debug httpmuxgo121=0
package main

import "net/http"

// With patterns that have methods and names in them.
func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/work/{n}", work)
	mux.HandleFunc("GET /leaf/{n}", leaf)
	mux.HandleFunc("POST /leaf/{n}", leaf)
	mux.HandleFunc("GET /leaf/{n}/{part}", leaf)
	mux.HandleFunc("/status/{code}", status)
	mux.HandleFunc("/", other)
	return mux
}
