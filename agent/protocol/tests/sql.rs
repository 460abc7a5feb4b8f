//! SQL text without its literals, and its summary.

#![allow(clippy::unwrap_used, reason = "a test may")]

use proptest::collection::vec;
use proptest::prelude::*;
use spanwise_protocol::sql::{Dialect, Sanitised, sanitise, sanitise_as, sanitise_bytes, sanitise_bytes_as};

const LIMIT: usize = 4096;

fn text(sql: &str) -> String {
    let found = sanitise(sql, LIMIT);
    let cut = if found.truncated { " ..." } else { "" };
    format!("{}{cut}", found.text)
}

fn mysql(sql: &str) -> String {
    let found = sanitise_as(Dialect::MySql, sql, LIMIT);
    let cut = if found.truncated { " ..." } else { "" };
    format!("{}{cut}", found.text)
}

#[test]
fn literals_become_question_marks() {
    for (sql, wanted) in [
        ("SELECT * FROM t WHERE a = 'b' AND c = 5", "SELECT * FROM t WHERE a = ? AND c = ?"),
        ("SELECT 'it''s', ''", "SELECT ?, ?"),
        (r"SELECT E'it\'s \\', e'a''b'", "SELECT ?, ?"),
        ("SELECT $$a'b$$, $q$ $$ $x$ $q$", "SELECT ?, ?"),
        ("SELECT 1, 1.5, .5, 5., 1e10, 1.5E-3, 0xFF, 0b10, 1_000", "SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?"),
        ("SELECT B'101', X'1F', x'ab', N'text', U&'d\\0061t'", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT -1+2", "SELECT -?+?"),
        ("SELECT DATE'2000-01-01', interval '1 day'::text", "SELECT DATE ?, interval ?::text"),
        ("SELECT NULL, true", "SELECT NULL, true"),
        ("SELECT \"a\"\"b 5\".c FROM \"Order\" o", "SELECT \"a\"\"b 5\".c FROM \"Order\" o"),
        ("SELECT t1.c2, a$3 FROM t1", "SELECT t1.c2, a$3 FROM t1"),
        ("SELECT a[1:2], b->>'key', c #> '{a,b}'", "SELECT a[?:?], b->>?, c #> ?"),
        ("SELECT '\u{e9}', \u{e9}t\u{e9} FROM t", "SELECT ?, \u{e9}t\u{e9} FROM t"),
        (r"SELECT 'C:\dir\\', 'x'", "SELECT ?, ?"),
    ] {
        assert_eq!(text(sql), wanted, "{sql}");
    }
}

#[test]
fn parameters_and_operators_stay() {
    for sql in [
        "SELECT * FROM t WHERE a = $1 AND b = $23",
        "SELECT * FROM t WHERE a = ? AND b = :name",
        "SELECT a::int, b ? c FROM t",
        "UPDATE t SET a = a || $1 WHERE b <> $2",
    ] {
        assert_eq!(text(sql), sql);
    }
}

#[test]
fn lists_are_short() {
    for (sql, wanted) in [
        ("a IN (1,2, 3)", "a IN (?)"),
        ("a in ( 'x' , NULL, -5 ) AND b", "a in (?) AND b"),
        ("a NOT IN($1, $2)", "a NOT IN(?)"),
        ("(a, b) IN ((1, 2), (3, 4))", "(a, b) IN (?)"),
        ("a IN (SELECT b FROM c WHERE d IN (1,2))", "a IN (SELECT b FROM c WHERE d IN (?))"),
        ("a IN (1, f(2))", "a IN (?, f(?))"),
        ("a IN (b)", "a IN (b)"),
        ("a IN ()", "a IN ()"),
        ("a = ANY(ARRAY[1, 2])", "a = ANY(ARRAY[?])"),
        (
            "INSERT INTO t VALUES (1, 'a', now()), (2, 'b', now()) , (3, 'c', x(')'))",
            "INSERT INTO t VALUES (?, ?, now())",
        ),
        (
            "INSERT INTO t VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES ($1, $2) ON CONFLICT DO NOTHING",
        ),
        ("a=VALUES(a), b=VALUES(b)", "a=VALUES(a), b=VALUES(b)"),
        ("a IN (1, 2, 'cu", "a IN (? ..."),
        ("a IN (1, 2", "a IN (?"),
    ] {
        assert_eq!(text(sql), wanted, "{sql}");
    }
}

#[test]
fn comments_and_white_space_go() {
    for (sql, wanted) in [
        ("  SELECT\n\t1 ", "SELECT ?"),
        ("/* a */ SELECT /* b /* c */ ' */ 1 -- it's\n, 2 -- end", "SELECT ? , ?"),
        ("SELECT a/**/b", "SELECT a b"),
        ("SELECT 1 /*traceparent='00-ab-cd-01',app='x'*/", "SELECT ?"),
        ("SELECT a - -1", "SELECT a - -?"),
        ("SELECT a /* no end", "SELECT a ..."),
        ("", ""),
        ("-- only", ""),
    ] {
        assert_eq!(text(sql), wanted, "{sql}");
    }
}

#[test]
fn what_cannot_be_told_is_cut() {
    for (sql, wanted) in [
        ("SELECT a FROM t WHERE b = 'secr", "SELECT a FROM t WHERE b = ..."),
        ("SELECT a WHERE b = $x$secr $x", "SELECT a WHERE b = ..."),
        ("SELECT a WHERE b = E'it\\'", "SELECT a WHERE b = ..."),
        ("SELECT a, \"b", "SELECT a, ..."),
        // Either string ends at the second quote, or goes on.
        (r"SELECT 'a\' , secret , 'b', c", "SELECT ..."),
        (r"SELECT 'a\''b', c", "SELECT ..."),
    ] {
        assert_eq!(text(sql), wanted, "{sql}");
    }
    let short = sanitise("SELECT alpha, beta FROM gamma", 20);
    assert_eq!(
        (&*short.text, &*short.summary, short.truncated),
        ("SELECT alpha, beta", "SELECT gamma", true)
    );
}

#[test]
fn mysql_has_its_own_quotes_and_comments() {
    for (sql, wanted) in [
        (r#"SELECT "it\"s", 'it\'s', `a"b` FROM t"#, r#"SELECT ?, ?, `a"b` FROM t"#),
        ("SELECT 1 # it's\n, 2 -- x\n, 5--3", "SELECT ? , ? , ?--?"),
        ("SELECT _utf8'abc', $a", "SELECT _utf8 ?, $a"),
        ("SELECT /* a /* b */ c", "SELECT c"),
        ("SELECT \"a", "SELECT ..."),
    ] {
        assert_eq!(mysql(sql), wanted, "{sql}");
    }
}

#[test]
fn bytes_need_not_be_text() {
    let found = sanitise_bytes(b"SELECT a\xff FROM t WHERE b = '\xfe'", LIMIT);
    assert_eq!(&*found.text, "SELECT a\u{fffd} FROM t WHERE b = ?");
    assert_eq!(&*sanitise_bytes_as(Dialect::MySql, b"SELECT \"\xff\"", LIMIT).text, "SELECT ?");
}

#[test]
fn summaries_tell_operations_and_tables() {
    for (sql, operation, summary) in [
        ("SELECT * FROM orders WHERE id = 1", "SELECT", "SELECT orders"),
        (
            "select a, b from public.orders o, items as i, \"Order Lines\" where x in (1)",
            "SELECT",
            "SELECT public.orders items \"Order Lines\"",
        ),
        ("SELECT * FROM a JOIN b ON a.i = b.i LEFT JOIN c USING (i), d", "SELECT", "SELECT a b c d"),
        ("SELECT (SELECT max(x) FROM b) FROM a ORDER BY p, q", "SELECT", "SELECT SELECT b a"),
        (
            "SELECT * FROM (SELECT * FROM a) s JOIN LATERAL (SELECT 1 FROM b) t ON true",
            "SELECT",
            "SELECT SELECT a SELECT b",
        ),
        ("SELECT * FROM (a JOIN b ON x = y) JOIN c ON z", "SELECT", "SELECT a b c"),
        (
            "SELECT extract(epoch FROM ts), substring(x FROM 2) FROM t WHERE a IS DISTINCT FROM b",
            "SELECT",
            "SELECT t",
        ),
        ("SELECT 1", "SELECT", "SELECT"),
        ("SELECT a FROM t FOR UPDATE", "SELECT", "SELECT t"),
        ("SELECT a FROM t UNION ALL SELECT b FROM u", "SELECT", "SELECT t SELECT u"),
        ("(SELECT a FROM t) UNION (SELECT b FROM u)", "SELECT", "SELECT t SELECT u"),
        ("INSERT INTO orders (a, b) VALUES (1, 2), (3, 4) RETURNING id", "INSERT", "INSERT orders"),
        ("INSERT INTO orders SELECT * FROM items", "INSERT", "INSERT orders SELECT items"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b", "INSERT", "INSERT t"),
        ("UPDATE ONLY orders SET a = (SELECT 1 FROM b) WHERE c", "UPDATE", "UPDATE orders SELECT b"),
        ("UPDATE a SET x = b.x FROM b", "UPDATE", "UPDATE a b"),
        (
            "DELETE FROM orders USING items WHERE id IN (SELECT id FROM old)",
            "DELETE",
            "DELETE orders items SELECT old",
        ),
        ("MERGE INTO a USING b ON x = y WHEN MATCHED THEN UPDATE SET c = 1", "MERGE", "MERGE a b"),
        ("WITH r AS (SELECT * FROM orders) SELECT * FROM r", "SELECT", "SELECT orders SELECT r"),
        (
            "WITH RECURSIVE r(a) AS MATERIALIZED (SELECT 1), s AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM s",
            "INSERT",
            "SELECT DELETE t INSERT u SELECT s",
        ),
        ("WITH r AS (SELECT * FROM ord", "WITH", "SELECT ord"),
        ("BEGIN", "BEGIN", "BEGIN"),
        ("begin isolation level serializable", "BEGIN", "BEGIN"),
        ("START TRANSACTION READ ONLY", "START", "START TRANSACTION"),
        ("COMMIT;", "COMMIT", "COMMIT"),
        ("SAVEPOINT s1", "SAVEPOINT", "SAVEPOINT"),
        ("SET search_path TO a, b", "SET", "SET"),
        ("SHOW server_version", "SHOW", "SHOW"),
        ("CREATE TABLE IF NOT EXISTS x (id int, name text DEFAULT 'a')", "CREATE", "CREATE TABLE x"),
        ("CREATE TEMP TABLE x AS SELECT * FROM y", "CREATE", "CREATE TABLE x SELECT y"),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", "CREATE", "CREATE INDEX i"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1 FROM t", "CREATE", "CREATE VIEW v SELECT t"),
        ("ALTER TABLE s.t ADD COLUMN c int", "ALTER", "ALTER TABLE s.t"),
        ("DROP TABLE IF EXISTS t CASCADE", "DROP", "DROP TABLE t"),
        ("CREATE USER alice PASSWORD 'x'", "CREATE", "CREATE USER"),
        ("TRUNCATE TABLE a, b", "TRUNCATE", "TRUNCATE a b"),
        ("CALL do_it(1, 'x')", "CALL", "CALL do_it"),
        ("COPY t (a, b) FROM STDIN", "COPY", "COPY t"),
        ("COPY (SELECT * FROM t) TO STDOUT", "COPY", "COPY SELECT t"),
        ("EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM t", "EXPLAIN", "EXPLAIN SELECT t"),
        ("EXPLAIN ANALYZE UPDATE t SET a = 1", "EXPLAIN", "EXPLAIN UPDATE t"),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "DECLARE", "DECLARE SELECT t"),
        ("FETCH 100 FROM c", "FETCH", "FETCH"),
        ("VALUES (1), (2)", "VALUES", "VALUES"),
        ("SELECT * FROM 'a'", "SELECT", "SELECT"),
        ("SELECT * FROM generate_series(1, 5) g, t", "SELECT", "SELECT generate_series t"),
        (
            "BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT",
            "BEGIN",
            "BEGIN INSERT t COMMIT",
        ),
        ("", "", ""),
        ("'a'", "", ""),
    ] {
        let found = sanitise(sql, LIMIT);
        assert_eq!((&*found.operation, &*found.summary), (operation, summary), "{sql}");
    }
}

#[test]
fn one_operation_on_one_table_has_a_collection() {
    let of = |sql: &str| sanitise(sql, LIMIT).collection.map(String::from);
    assert_eq!(of("SELECT * FROM s.t"), Some("s.t".into()));
    assert_eq!(of("INSERT INTO t VALUES (1)"), Some("t".into()));
    assert_eq!(of("SELECT * FROM a JOIN b"), None);
    assert_eq!(of("INSERT INTO t SELECT 1"), None);
    assert_eq!(of("SELECT 1"), None);
}

#[test]
fn a_summary_is_short_and_its_names_are_whole() {
    let tables: Vec<String> = (0..100).map(|i| format!("schema_{i}.table_{i}")).collect();
    let found = sanitise(&format!("SELECT * FROM {}", tables.join(", ")), LIMIT);
    assert!(found.summary.len() <= 255 && found.summary.len() > 200);
    assert!(
        found.summary.split(' ').skip(1).all(|name| tables.iter().any(|t| t == name)),
        "{}",
        found.summary
    );
    let long = "n".repeat(300);
    assert_eq!(&*sanitise(&format!("SELECT * FROM {long}"), LIMIT).summary, "SELECT");
    assert_eq!(&*sanitise(&format!("SELECT * FROM a.{long}"), LIMIT).summary, "SELECT");
    assert_eq!(&*sanitise(&format!("{long} x"), LIMIT).operation, "");
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}SELECT a FROM t{} FROM u", "(".repeat(100_000), ")".repeat(100_000));
    assert_eq!(sanitise(&deep, 16).text.len(), 16);
    let lists = "a IN (1, (".repeat(20_000);
    assert!(sanitise(&lists, LIMIT).text.len() <= LIMIT);
}

/// Statements without capitals and digits: whatever is one in the text came from a literal.
const TEMPLATES: &[&str] = &[
    "select a from t where b = @ and c <> @",
    "insert into t (a, b) values (@, @), (@, f(@)) returning a",
    "update t set a = @, b = a || @ where c in (@, @, @)",
    "select @::text, \"n\" from t, u -- c\n where a in (@) and b = any(array[@,@])",
    "with r as (select @ from t) delete from u where a=@ /* it's */ and b=@",
    "call p(@, @)",
    "select * from f(@) where a like @ escape @",
    "@ @ select @",
    "set a = @; select @",
];

/// What a literal is made of, beside what ends it.
const SECRET: &[char] =
    &['Q', 'J', '\u{c9}', '7', ' ', '-', '/', '*', '$', '"', '(', ')', ',', ';', '\\', '\'', '`', '#', '\n'];

fn content() -> impl Strategy<Value = String> {
    vec(prop::sample::select(SECRET), 0..12).prop_map(String::from_iter)
}

fn literal(mysql: bool) -> BoxedStrategy<String> {
    let doubled = |text: String, quote: &str| text.replace(quote, &quote.repeat(2));
    let escaped = |text: String| text.replace('\\', "\\\\").replace('\'', "\\'");
    let number = prop::sample::select(&["7", "77.7", ".7", "7e7", "7.7E-7", "0xJQ7", "7_7", "7Q"][..])
        .prop_map(String::from);
    let plain = content().prop_map(move |text| {
        let text = if mysql { text.replace('\\', "\\\\") } else { text };
        format!("'{}'", doubled(text, "'"))
    });
    if mysql {
        let double =
            content().prop_map(move |text| format!("\"{}\"", doubled(text.replace('\\', "\\\\"), "\"")));
        return prop_oneof![number, plain, double].boxed();
    }
    let special = content().prop_map(move |text| format!("E'{}'", escaped(text)));
    let dollar = content().prop_map(|text| format!("$tag${}$tag$", text));
    prop_oneof![number, plain, special, dollar].boxed()
}

fn statement(mysql: bool) -> impl Strategy<Value = String> {
    (prop::sample::select(TEMPLATES), vec(literal(mysql), 8)).prop_map(|(template, literals)| {
        let mut literals = literals.into_iter();
        let mut out = String::new();
        for piece in template.split_inclusive('@') {
            match piece.strip_suffix('@') {
                Some(before) => {
                    out.push_str(before);
                    out.push_str(&literals.next().unwrap());
                }
                None => out.push_str(piece),
            }
        }
        out
    })
}

fn leaks(found: &Sanitised) -> bool {
    let secret = |c: char| matches!(c, 'Q' | 'J' | '\u{c9}') || c.is_ascii_digit();
    found.text.contains(secret)
        || found.summary.contains(secret)
        || found.operation.contains(secret)
        || found.collection.as_ref().is_some_and(|name| name.contains(secret))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_a_literal_goes_out(sql in statement(false), cut in any::<prop::sample::Index>(), limit in 0usize..200) {
        let found = sanitise(&sql, limit);
        prop_assert!(!leaks(&found), "{:?} of {}", found, sql);
        prop_assert!(found.text.len() <= limit && found.summary.len() <= 255);
        let part = &sql.as_bytes()[..cut.index(sql.len() + 1)];
        let found = sanitise_bytes(part, LIMIT);
        prop_assert!(!leaks(&found), "{:?} of {}", found, String::from_utf8_lossy(part));
    }

    #[test]
    fn nothing_of_a_mysql_literal_goes_out(sql in statement(true), cut in any::<prop::sample::Index>()) {
        let part = &sql.as_bytes()[..cut.index(sql.len() + 1)];
        for sql in [sql.as_bytes(), part] {
            let found = sanitise_bytes_as(Dialect::MySql, sql, LIMIT);
            prop_assert!(!leaks(&found), "{:?} of {}", found, String::from_utf8_lossy(sql));
        }
    }

    #[test]
    fn any_bytes_are_taken(pieces in vec(prop_oneof![
        4 => prop::sample::select(&["select", "from", "(", ")", ",", "'", "\"", "$$", "$a$", "--", "/*", "*/", "in (", "values (", ";", ".", "\\", "with", " ", "a", "5", "E'"][..]).prop_map(|p| p.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ], 0..40), limit in 0usize..100) {
        for dialect in [Dialect::PostgreSql, Dialect::MySql] {
            let found = sanitise_bytes_as(dialect, &pieces.concat(), limit);
            prop_assert!(found.text.len() <= limit && found.summary.len() <= 255 && found.operation.len() <= 32);
        }
    }

    #[test]
    fn what_is_sanitised_stays_as_it_is(sql in statement(false)) {
        let once = sanitise(&sql, LIMIT);
        if !once.truncated {
            prop_assert_eq!(&sanitise(&once.text, LIMIT).text, &once.text);
        }
    }
}
