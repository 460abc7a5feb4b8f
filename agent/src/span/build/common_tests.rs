//! Attributes that were made before are those that would be made anew.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::conn::tls::Tls;

fn clock() -> Clock {
    Clock::from_sample(Sample { boot_ns: 0, unix_ns: 1_000_000, spread_ns: 0 })
}

fn built(commons: &mut Commons, exchange: &Exchange) -> Span {
    build_in(Vec::new(), commons, exchange.clone().into(), decision(), &clock(), Conventions::default())
}

/// One that shares nothing says the same.
fn assert_same(span: &Span, exchange: Exchange) -> Result<(), TestCaseError> {
    let alone = super::span(exchange);
    prop_assert!(alone.common.is_none());
    prop_assert_eq!(told(span), told(&alone));
    prop_assert_eq!((&span.name, span.kind, span.status), (&alone.name, alone.kind, alone.status));
    Ok(())
}

/// A few connections, of which the first two have the same place and the same cookie, and the next two the same place.
fn connections() -> Vec<Exchange> {
    let of = |side, cookie, peer: &str| {
        let mut exchange = exchange(side);
        connection(&mut exchange, |conn| (conn.cookie, conn.remote) = (cookie, inet(peer)));
        exchange
    };
    let mut all = vec![
        of(Side::Server, 1, "10.0.0.2:51000"),
        of(Side::Client, 1, "10.0.0.2:80"),
        of(Side::Server, 257, "10.0.0.3:52000"),
        of(Side::Client, 513, "10.0.0.3:443"),
        of(Side::Client, 2, "[fd00::1]:80"),
        of(Side::Server, 3, "10.0.0.4:1"),
    ];
    connection(&mut all[5], |conn| conn.remote = Endpoint::Unix);
    let tls = Tls { server_name: Some("sni.example".into()), ..Tls::default() };
    connection(&mut all[3], |conn| conn.tls = Some(Rc::new(tls)));
    all
}

type Said = (
    usize,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    Version,
    &'static str,
);

fn said() -> impl Strategy<Value = Said> {
    (
        prop_oneof![4 => Just(0_usize), 4 => 0_usize..6],
        select(&["GET", "POST", "CONNECT", "BREW"][..]),
        prop_oneof![4 => Just(Some("shop.example:8080")), 1 => select(&[None, Some(""), Some("other"), Some("bob:pw@a.b"), Some("[::1]:80")][..])],
        prop_oneof![4 => Just(Some("curl/8")), 1 => select(&[None, Some(""), Some("wrk")][..])],
        prop_oneof![4 => Just(None), 1 => select(&[Some("http"), Some("https")][..])],
        prop_oneof![4 => Just(Version::Http11), 1 => select(&[Version::Http10, Version::Http2][..])],
        select(&["/", "", "*", "/a/b"][..]),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shared_is_what_each_would_say(all in vec(said(), 1..60)) {
        let connections = connections();
        let mut commons = Commons::default();
        for (at, method, authority, agent, scheme, version, path) in all {
            let mut exchange = connections[at].clone();
            let request = &mut exchange.request;
            (request.method, request.path, request.version) = (method.into(), path.into(), version);
            request.authority = authority.map(Into::into);
            request.user_agent = agent.map(Into::into);
            request.scheme = scheme.map(Into::into);
            let span = built(&mut commons, &exchange);
            let shown = format!("{span:?}");
            prop_assert!(!shown.contains("bob:pw"));
            assert_same(&span, exchange)?;
        }
    }
}

#[test]
fn from_the_second_on_a_connection_shares() {
    let mut commons = Commons::default();
    let [server, client] = [Side::Server, Side::Client].map(exchange);
    let shares = |commons: &mut Commons, exchange: &Exchange| built(commons, exchange).common.is_some();
    assert_eq!([(); 3].map(|()| shares(&mut commons, &server)), [false, true, true]);
    let (one, other) = (built(&mut commons, &server), built(&mut commons, &server));
    assert!(Arc::ptr_eq(&one.common.unwrap(), &other.common.unwrap()));
    // Another on its place takes it only if the first comes no more.
    assert_eq!([(); 5].map(|()| shares(&mut commons, &client)), [false, false, false, false, true]);
    assert!(!shares(&mut commons, &server));
    // A password is kept nowhere.
    let mut secret = exchange(Side::Server);
    secret.request.authority = Some("bob:pw@a.b".into());
    let mut commons = Commons::default();
    assert_eq!([(); 3].map(|()| shares(&mut commons, &secret)), [false; 3]);
}
