//! What must not leave the host, taken out: text of a request in, the same without secrets out.
//!
//! Query values go, their keys stay. User and password of an authority go. Header values are never copied at all,
//! but for the user agent.

/// What stands for a value.
const REDACTED: &str = "REDACTED";

/// Appends a query with its values replaced. A part without `=` is a key.
pub(super) fn push_query(out: &mut String, query: &str) {
    for (number, part) in query.split('&').enumerate() {
        if number > 0 {
            out.push('&');
        }
        match part.split_once('=') {
            Some((key, _)) => {
                out.push_str(key);
                out.push('=');
                out.push_str(REDACTED);
            }
            None => out.push_str(part),
        }
    }
}

/// A query with its values replaced.
pub(super) fn query(query: &str) -> String {
    let mut out = String::with_capacity(query.len() + REDACTED.len());
    push_query(&mut out, query);
    out
}

/// An authority without user and password.
pub(super) fn authority(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_and_keys_stay() {
        for (sent, kept) in [
            ("a=1&b=two&c", "a=REDACTED&b=REDACTED&c"),
            ("sig", "sig"),
            ("", ""),
            ("a=", "a=REDACTED"),
            ("a=b=c", "a=REDACTED"),
            ("&&a=1&", "&&a=REDACTED&"),
            ("a=1;b=2", "a=REDACTED"),
            ("token=\u{e9}", "token=REDACTED"),
        ] {
            assert_eq!(query(sent), kept);
        }
    }

    #[test]
    fn users_and_passwords_go() {
        assert_eq!(authority("user:pa@ss@host:80"), "host:80");
        assert_eq!(authority("host"), "host");
    }
}
