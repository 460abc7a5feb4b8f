//! The `ot` member of a `tracestate`: `th` (threshold) and `rv` (randomness).
//!
//! Comes in: a `tracestate` as received. Goes out: its randomness, or the same list with another threshold.

/// Longest value of the `ot` member.
const LONGEST_VALUE: usize = 256;
/// Longest list that others are sure to pass on.
const LONGEST_STATE: usize = 512;
/// Most members of a list.
const MOST_MEMBERS: usize = 32;

/// Members of a list, empty ones left out.
fn members(state: &str) -> impl Iterator<Item = &str> {
    state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
}

fn is_ot(member: &str) -> bool {
    member.starts_with("ot=")
}

/// Fields `key:value` of the `ot` member.
fn fields(state: &str) -> impl Iterator<Item = &str> {
    let value = members(state).find(|member| is_ot(member)).and_then(|member| member.split_once('='));
    value.map_or("", |(_, value)| value).split(';').filter(|field| !field.is_empty())
}

/// The randomness that the root chose explicitly: exactly 14 hex digits.
pub(super) fn randomness(state: &str) -> Option<u64> {
    let text = fields(state).find_map(|field| field.strip_prefix("rv:"))?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 14 || !text.bytes().all(is_hex) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Whether the list says a threshold.
pub(super) fn has_threshold(state: &str) -> bool {
    fields(state).any(|field| field.starts_with("th:"))
}

/// The list with this threshold. The member goes to the left, as a changed one must; all else stays, `rv` too.
pub(super) fn with_threshold(state: Option<&str>, threshold: &str) -> Box<str> {
    let state = state.unwrap_or_default();
    let mut out = format!("ot=th:{threshold}");
    for field in fields(state).filter(|field| !field.starts_with("th:")) {
        // A value too long is invalid as a whole. `rv` comes before it in what others write, and is short.
        if out.len() + 1 + field.len() <= "ot=".len() + LONGEST_VALUE {
            out.push(';');
            out.push_str(field);
        }
    }
    for member in members(state).filter(|member| !is_ot(member)).take(MOST_MEMBERS - 1) {
        // The rightmost are the first to go, whole ones only.
        if out.len() + 1 + member.len() > LONGEST_STATE.max(state.len()) {
            break;
        }
        out.push(',');
        out.push_str(member);
    }
    out.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threshold_is_set_and_the_rest_kept() {
        assert_eq!(&*with_threshold(None, "8"), "ot=th:8");
        assert_eq!(&*with_threshold(Some("a=1,b=2"), "8"), "ot=th:8,a=1,b=2");
        assert_eq!(
            &*with_threshold(Some("a=1, ot=rv:00000000000001;th:c;x:y ,b=2"), "8"),
            "ot=th:8;rv:00000000000001;x:y,a=1,b=2"
        );
        assert_eq!(&*with_threshold(Some(" ,,ot=,a=1"), "0"), "ot=th:0,a=1");
    }

    #[test]
    fn limits_are_kept() {
        let many: Vec<String> = (0..32).map(|number| format!("k{number}=v")).collect();
        let out = with_threshold(Some(&many.join(",")), "8");
        assert_eq!(out.split(',').count(), 32);
        let long = format!("ot=rv:00000000000001;x:{}", "y".repeat(300));
        assert_eq!(&*with_threshold(Some(&long), "8"), "ot=th:8;rv:00000000000001");
    }

    #[test]
    fn randomness_is_exact() {
        assert_eq!(randomness("a=1,ot=th:8;rv:0123456789abcd"), Some(0x0001_2345_6789_abcd));
        for bad in ["ot=rv:123", "ot=rv:0123456789ABCD", "ot=rv:+123456789abcd", "xot=rv:0123456789abcd", ""]
        {
            assert_eq!(randomness(bad), None, "{bad}");
        }
        assert!(has_threshold("ot=rv:1;th:8") && !has_threshold("ot=rv:1,x=th:8"));
    }
}
