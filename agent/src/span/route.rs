//! From the pattern of a router to `http.route`. In: the pattern, as a program registered it. Out: its path.

/// The path of a pattern: without the method and the host that patterns of Go's `ServeMux` may have.
pub(super) fn path(pattern: &str) -> Option<&str> {
    let rest = match pattern.split_once([' ', '\t']) {
        Some((method, rest)) if !method.contains('/') => rest.trim_start_matches([' ', '\t']),
        _ => pattern,
    };
    rest.find('/').and_then(|at| rest.get(at..))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn method_and_host_are_left_out() {
        assert_eq!(path("/"), Some("/"));
        assert_eq!(path("/items/{id}"), Some("/items/{id}"));
        assert_eq!(path("GET /items/{id}"), Some("/items/{id}"));
        assert_eq!(path("GET \t example.com/items/{$}"), Some("/items/{$}"));
        assert_eq!(path("example.com/"), Some("/"));
        assert_eq!(path("/with a space/:id"), Some("/with a space/:id"));
        assert_eq!(path("CONNECT example.com"), None);
        assert_eq!(path(""), None);
    }
}
