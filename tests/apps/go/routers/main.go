// Server with one of the routers gin, echo and chi.
//
//	routers -port PORT -framework gin|echo|chi [-delay-ms N]
//
// /leaf/N, /leaf/N/PART and /api/leaf/N (of chi in a router below) answer N after a random delay of at most -delay-ms; /long/N answers
// 20,000 bytes, the first of which are sent before it is done.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"
)

var (
	port      = flag.Int("port", 0, "port on 127.0.0.1")
	framework = flag.String("framework", "gin", "gin, echo or chi")
	delay     = flag.Float64("delay-ms", 0, "longest delay")
)

func pause() {
	if *delay > 0 {
		time.Sleep(time.Duration(rand.Float64() * *delay * float64(time.Millisecond)))
	}
}

var long = strings.Repeat("0123456789abcde\n", 1250)

func withGin() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(gin.Recovery())
	leaf := func(c *gin.Context) { pause(); c.String(http.StatusOK, c.Param("n")) }
	engine.GET("/leaf/:n", leaf)
	engine.GET("/leaf/:n/:part", leaf)
	engine.GET("/long/:n", func(c *gin.Context) { pause(); c.String(http.StatusOK, long) })
	engine.Group("/api").GET("/leaf/:n", leaf)
	return engine
}

func withEcho() http.Handler {
	server := echo.New()
	leaf := func(c echo.Context) error { pause(); return c.String(http.StatusOK, c.Param("n")) }
	server.GET("/leaf/:n", leaf)
	server.GET("/leaf/:n/:part", leaf)
	server.GET("/long/:n", func(c echo.Context) error { pause(); return c.String(http.StatusOK, long) })
	server.Group("/api").GET("/leaf/:n", leaf)
	return server
}

func withChi() http.Handler {
	router := chi.NewRouter()
	leaf := func(w http.ResponseWriter, r *http.Request) { pause(); fmt.Fprint(w, chi.URLParam(r, "n")) }
	router.Get("/leaf/{n}", leaf)
	router.Get("/leaf/{n}/{part}", leaf)
	router.Get("/long/{n}", func(w http.ResponseWriter, _ *http.Request) { pause(); fmt.Fprint(w, long) })
	router.Route("/api", func(router chi.Router) { router.Get("/leaf/{n}", leaf) })
	return router
}

func main() {
	flag.Parse()
	make, known := map[string]func() http.Handler{"gin": withGin, "echo": withEcho, "chi": withChi}[*framework]
	if !known {
		fmt.Fprintln(os.Stderr, "there is no framework", *framework)
		os.Exit(1)
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err == nil {
		fmt.Println("ready")
		err = (&http.Server{Handler: make()}).Serve(listener)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
