// Server that asks databases and calls another server, with net/http or gin.
//
//	data -port PORT [-framework std|gin] [-postgres URL] [-redis HOST:PORT] [-downstream URL]
//
// /pgx/N and /sql/N ask PostgreSQL by pgx and by database/sql, /redis/N sets and gets in Redis. /text/N has N in the statement,
// /batch/N asks three things at once, /fails/N is refused. /work/N does all that is configured, one after the other, then calls
// /leaf/N downstream. Each answers N; /leaf/N does at once.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
)

var (
	port       = flag.Int("port", 0, "port on 127.0.0.1")
	framework  = flag.String("framework", "std", "std or gin")
	postgres   = flag.String("postgres", "", "URL of PostgreSQL")
	redisAt    = flag.String("redis", "", "address of Redis")
	downstream = flag.String("downstream", "", "base URL of the next server")

	pool   *pgxpool.Pool
	db     *sql.DB
	store  *redis.Client
	client = &http.Client{Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 512}}
)

type step func(ctx context.Context, n int) (int, error)

var steps = map[string]step{"pgx": byPgx, "sql": bySql, "text": byText, "batch": inBatch, "fails": refused,
	"redis": byRedis, "work": all, "leaf": same}

func byPgx(ctx context.Context, n int) (m int, err error) {
	err = pool.QueryRow(ctx, "select $1::int + 0 from pgbench_branches where 'secret' <> 'x'", n).Scan(&m)
	return m, err
}

func bySql(ctx context.Context, n int) (m int, err error) {
	err = db.QueryRowContext(ctx, "select cast($1 as int) + 0 where 'secret' <> 'y'", n).Scan(&m)
	return m, err
}

func byText(ctx context.Context, n int) (m int, err error) {
	text := fmt.Sprintf("select %d + 0 from pgbench_tellers where 'secret' <> 'z' limit 1", n)
	err = pool.QueryRow(ctx, text, pgx.QueryExecModeSimpleProtocol).Scan(&m)
	return m, err
}

func inBatch(ctx context.Context, n int) (m int, err error) {
	batch := &pgx.Batch{}
	for part := range 3 {
		batch.Queue("select $1::int + 0, 'secret' from pgbench_branches", n+part)
	}
	results := pool.SendBatch(ctx, batch)
	err = results.QueryRow().Scan(&m, nil)
	return m, errors.Join(err, results.Close())
}

func refused(ctx context.Context, n int) (int, error) {
	_, err := pool.Exec(ctx, fmt.Sprintf("select %d / 0 from pgbench_tellers", n), pgx.QueryExecModeSimpleProtocol)
	var state *pgconn.PgError
	if errors.As(err, &state) && state.Code == "22012" {
		return n, nil
	}
	return 0, errors.Join(errors.New("nothing was refused"), err)
}

func byRedis(ctx context.Context, n int) (int, error) {
	key := "key:" + strconv.Itoa(n)
	if err := store.Set(ctx, key, n, 0).Err(); err != nil {
		return 0, err
	}
	return store.Get(ctx, key).Int()
}

func same(_ context.Context, n int) (int, error) { return n, nil }

func all(ctx context.Context, n int) (int, error) {
	if *postgres != "" {
		for _, step := range []step{byPgx, bySql, byText, inBatch, refused} {
			if m, err := step(ctx, n); err != nil || m != n {
				return m, err
			}
		}
	}
	if *redisAt != "" {
		if m, err := byRedis(ctx, n); err != nil || m != n {
			return m, err
		}
	}
	if *downstream == "" {
		return n, nil
	}
	request, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/leaf/%d", *downstream, n), nil)
	if err != nil {
		return 0, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

// Status and body for the number in the path.
func run(ctx context.Context, step step, text string) (int, string) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	m, err := step(ctx, n)
	if err == nil && m != n {
		err = errors.New("another number came back")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return http.StatusBadGateway, err.Error()
	}
	return http.StatusOK, text
}

func std() http.Handler {
	mux := http.NewServeMux()
	for name, step := range steps {
		mux.HandleFunc("GET /"+name+"/{n}", func(w http.ResponseWriter, r *http.Request) {
			status, body := run(r.Context(), step, r.PathValue("n"))
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	return mux
}

func gins() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	for name, step := range steps {
		engine.GET("/"+name+"/:n", func(c *gin.Context) {
			status, body := run(c.Request.Context(), step, c.Param("n"))
			c.String(status, body)
		})
	}
	return engine
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	flag.Parse()
	var err error
	if *postgres != "" {
		pool, err = pgxpool.New(context.Background(), *postgres)
		must(err)
		db, err = sql.Open("pgx", *postgres)
		must(err)
		db.SetMaxIdleConns(16)
		db.SetMaxOpenConns(16)
	}
	if *redisAt != "" {
		store = redis.NewClient(&redis.Options{Addr: *redisAt})
	}
	handler := std()
	if *framework == "gin" {
		handler = gins()
	}
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	must(err)
	fmt.Println("ready")
	must(http.Serve(listener, handler))
}
