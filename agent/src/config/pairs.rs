//! `key=value,key=value` with percent-encoded values: headers and resource attributes.

/// Splits a list of pairs. Values (and keys) are percent-decoded; blank entries are passed over. The error says what is wrong
/// without the value, which may be a secret.
pub fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .enumerate()
        .filter(|(_, part)| !part.trim().is_empty())
        .map(|(index, part)| {
            let entry = index + 1;
            let (key, value) = part.split_once('=').ok_or_else(|| format!("entry {entry} has no \"=\""))?;
            let key =
                percent_decode(key.trim()).ok_or_else(|| format!("the key of entry {entry} is not UTF-8"))?;
            if key.is_empty() {
                return Err(format!("entry {entry} has no key"));
            }
            let value =
                percent_decode(value.trim()).ok_or_else(|| format!("the value of {key:?} is not UTF-8"))?;
            Ok((key, value))
        })
        .collect()
}

/// Decodes `%41`; a percent sign without two hexadecimal digits stands for itself. None if the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse_pairs(text).unwrap()
    }

    #[test]
    fn decoding() {
        let expected =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Vec<_>>();
        assert_eq!(pairs("a=1, b = x%20y ,c="), expected(&[("a", "1"), ("b", "x y"), ("c", "")]));
        assert_eq!(pairs("authorization=Basic%20QQ=="), expected(&[("authorization", "Basic QQ==")]));
        assert_eq!(
            pairs("k=100%,l=%2,m=%C3%A9,n=%2C"),
            expected(&[("k", "100%"), ("l", "%2"), ("m", "é"), ("n", ",")])
        );
        assert_eq!(pairs(",,"), expected(&[]));
    }

    #[test]
    fn errors_name_the_entry_but_not_the_value() {
        assert_eq!(parse_pairs("a=1,secret").unwrap_err(), "entry 2 has no \"=\"");
        assert_eq!(parse_pairs("=secret").unwrap_err(), "entry 1 has no key");
        assert_eq!(parse_pairs("k=%ff%fe").unwrap_err(), "the value of \"k\" is not UTF-8");
    }
}
