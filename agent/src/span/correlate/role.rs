//! What a function is for that goroutines begin at. Comes in: its name, as Go's own table has it. Goes out: a [`Role`].
//!
//! A `go` statement with arguments makes a function of its own (`.gowrap1`, `.func2`) in the one it stands in, so names are of the
//! starter as often as of what is started.

use super::lineage::Role;

/// Beginnings of names of goroutines that stand for the one that started them: they read a byte ahead, or write the head of a
/// request.
const STANDS: &[&str] = &[
    "net/http.(*connReader).",
    "net/http.(*http2ClientConn).roundTrip",
    "net/http.(*http2ClientConn).RoundTrip",
    "net/http/internal/http2.(*ClientConn).roundTrip",
    "golang.org/x/net/http2.(*ClientConn).internalRoundTrip",
    "golang.org/x/net/http2.(*ClientConn).roundTrip",
    "golang.org/x/net/http2.(*ClientConn).RoundTrip",
];
/// Beginnings of names of goroutines that work for whoever comes, however they were started.
const SHARED: &[&str] = &[
    // Connections of HTTP clients: dialled for one, used by all.
    "net/http.(*Transport).dialConn",
    "net/http.(*Transport).queueForDial",
    "net/http.(*Transport).startDialConnForLocked",
    "net/http.(*persistConn).",
    "net/http.(*http2Transport).",
    "net/http.(*http2clientConn",
    "net/http.(*http2ClientConn).",
    "net/http.http2",
    "net/http.(*http2serverConn).serve",
    "golang.org/x/net/http2.(*Transport).",
    "golang.org/x/net/http2.(*clientConn",
    "golang.org/x/net/http2.(*ClientConn).",
    "golang.org/x/net/http2.(*serverConn).serve",
    "net/http/internal/http2.(*Transport).",
    "net/http/internal/http2.(*clientConn",
    "net/http/internal/http2.(*ClientConn).",
    "net/http/internal/http2.(*serverConn).serve",
    "google.golang.org/grpc/internal/transport.",
    "google.golang.org/grpc.(*addrConn).",
    "google.golang.org/grpc.(*ClientConn).",
    // Pools of connections to databases.
    "database/sql.",
    "github.com/jackc/pgx/v5/pgxpool.",
    "github.com/jackc/puddle/v2.",
    "github.com/jackc/pgx/v5/pgconn/internal/bgreader.",
    "github.com/redis/go-redis/v9/internal/pool.",
    "github.com/go-sql-driver/mysql.(*mysqlConn).",
    // Names looked up for several at once.
    "net.(*Resolver).",
    "internal/singleflight.",
    "golang.org/x/sync/singleflight.",
];

/// The role of a function.
pub fn of(name: &str) -> Role {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    if begins(STANDS) {
        return Role::Stands;
    }
    if begins(SHARED) { Role::Shared } else { Role::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for (name, role) in [
            ("net/http.(*connReader).startBackgroundRead.gowrap2", Role::Stands),
            ("net/http.(*connReader).backgroundRead-fm", Role::Stands),
            ("net/http.(*http2ClientConn).roundTrip.gowrap1", Role::Stands),
            ("net/http/internal/http2.(*ClientConn).roundTrip.gowrap1", Role::Stands),
            ("golang.org/x/net/http2.(*ClientConn).internalRoundTrip.gowrap1", Role::Stands),
            ("net/http.(*http2ClientConn).readLoop-fm", Role::Shared),
            ("net/http/internal/http2.(*ClientConn).readLoop-fm", Role::Shared),
            ("net/http.(*Transport).dialConn.gowrap3", Role::Shared),
            ("net/http.(*Transport).dialConn.func5", Role::Shared),
            ("net/http.(*persistConn).writeLoop-fm", Role::Shared),
            ("database/sql.OpenDB.gowrap1", Role::Shared),
            ("net/http.(*Server).Serve.gowrap3", Role::Plain),
            ("net/http.(*timeoutHandler).ServeHTTP.func1", Role::Plain),
            ("golang.org/x/sync/errgroup.(*Group).Go.func1", Role::Plain),
            ("main.handle.func1", Role::Plain),
        ] {
            assert_eq!(of(name), role, "{name}");
        }
    }
}
