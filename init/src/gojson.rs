//! Writes JSON byte for byte as Go's `encoding/json` does.
//!
//! Both the push and the credential files are read by programs that compare them with what the reference wrote,
//! so `<`, `>`, `&` and the two Unicode line separators are escaped as Go escapes them.
//!
//! Must never: grow its buffer while it holds a secret. A buffer that moves leaves a copy behind; callers
//! reserve with [`string_len_max`].

use zeroize::Zeroizing;

/// The longest that `text` can become: each byte as `\u00XX`, and two quotes.
#[must_use]
pub const fn string_len_max(text: &str) -> usize {
    text.len() * 6 + 2
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' => {
                let byte = c as usize & 0xff;
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[byte >> 4], HEX[byte & 15]]);
            }
            '\u{2028}' => out.extend_from_slice(b"\\u2028"),
            '\u{2029}' => out.extend_from_slice(b"\\u2029"),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// One value of an [`object`].
pub enum Value<'a> {
    /// A string.
    String(&'a str),
    /// A whole number.
    Number(i64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// Bytes, as base64.
    Base64(&'a [u8]),
}

/// A compact object with its fields in the order given, in a buffer that is wiped when dropped.
#[must_use]
pub fn object(fields: &[(&str, Value<'_>)]) -> Zeroizing<Vec<u8>> {
    // 24 holds the longest number, the word `false`, and the punctuation of one field.
    let capacity: usize = fields
        .iter()
        .map(|(key, value)| {
            string_len_max(key)
                + 24
                + match value {
                    Value::String(text) => string_len_max(text),
                    Value::Base64(bytes) => crate::base64::encoded_len(bytes.len()),
                    Value::Number(_) | Value::Bool(_) | Value::Null => 0,
                }
        })
        .sum::<usize>()
        + 2;
    let mut out = Zeroizing::new(Vec::with_capacity(capacity));
    for (index, (key, value)) in fields.iter().enumerate() {
        out.push(if index == 0 { b'{' } else { b',' });
        push_string(&mut out, key);
        out.push(b':');
        match value {
            Value::String(text) => push_string(&mut out, text),
            Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Bool(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
            Value::Null => out.extend_from_slice(b"null"),
            Value::Base64(bytes) => {
                out.push(b'"');
                crate::base64::encode_into(bytes, &mut out);
                out.push(b'"');
            }
        }
    }
    if fields.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    debug_assert!(out.len() <= capacity, "the buffer moved and left a copy behind");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        assert_eq!(string("http://vault:8200"), r#""http://vault:8200""#);
        assert_eq!(string("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(string("\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}"), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}\"");
        assert_eq!(string("é\u{2028}\u{2029}"), r#""é\u2028\u2029""#);
    }

    #[test]
    fn an_object_keeps_the_order_of_its_fields() {
        let fields = [
            ("b", Value::Bool(true)),
            ("a", Value::Number(i64::MIN)),
            ("n", Value::Null),
            ("c", Value::Base64(b"foob")),
        ];
        assert_eq!(object(&fields).as_slice(), br#"{"b":true,"a":-9223372036854775808,"n":null,"c":"Zm9vYg=="}"#);
        assert_eq!(object(&[]).as_slice(), b"{}");
    }

    proptest! {
        #[test]
        fn any_json_reader_reads_the_string_back(text in any::<String>()) {
            prop_assert!(string(&text).len() <= string_len_max(&text));
            prop_assert_eq!(serde_json::from_str::<String>(&string(&text)).unwrap(), text);
        }
    }
}
