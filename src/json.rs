//! JSON from outside. serde takes an array for a struct, with the values in the order of its fields; here an object is
//! written as an object, so that a field that comes to be changes what nobody's array means.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::{Deserializer, Error};

/// The value of this JSON text, which has to be one object and nothing else. Objects within it may be arrays.
///
/// # Errors
/// It is no JSON, no object, or not one of this shape.
pub(crate) fn object<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Error> {
    let mut text = Deserializer::from_slice(text);
    let value = text.deserialize_map(Object(PhantomData))?;
    text.end()?;
    Ok(value)
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow, default)]
        input: Option<&'a RawValue>,
    }

    fn read(text: &str) -> Result<Line<'_>, String> {
        object(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_object_is_read_as_serde_reads_it() {
        let line = read(r#" {"input": [1,  2.50], "id": "order\u002d42"} "#).unwrap();
        assert_eq!((&*line.id, line.input.unwrap().get()), ("order-42", "[1,  2.50]"));
        assert_eq!(read(r#"{"id":"a"}"#).unwrap().id, "a");
    }

    #[test]
    fn anything_else_is_refused_with_its_place() {
        for (text, why) in [
            (r#"["order-42"]"#, "invalid type: sequence, expected an object at line 1"),
            (r#""order-42""#, "invalid type: string \"order-42\", expected an object at line 1"),
            ("null", "invalid type: null, expected an object at line 1"),
            ("", "EOF while parsing a value at line 1 column 0"),
            (r#"{"id":"a"} x"#, "trailing characters at line 1 column 12"),
            (r#"{"id":"a""#, "EOF while parsing an object at line 1 column 9"),
            (r#"{"id":"a","input":1,"input":2}"#, "duplicate field `input` at line 1 column 27"),
            (
                r#"{"id":"a","inptu":1}"#,
                "unknown field `inptu`, expected `id` or `input` at line 1 column 17",
            ),
            ("{}", "missing field `id` at line 1 column 2"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }
}
