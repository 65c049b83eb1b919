//! JSON objects of which some fields are rewritten and the others stay byte for byte.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{Value, value::RawValue};

use crate::Invalid;

/// An object's fields in their order, their values untouched.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Fields<'a> {
    /// Reads the object that `body` is.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Invalid> {
        serde_json::from_slice(body).map_err(not_an_object)
    }

    /// A field's value.
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| &**value)
    }

    /// Writes a field anew, in its old place if it had one.
    pub(crate) fn set(&mut self, name: &'static str, value: &Value) -> Result<(), Invalid> {
        let value = serde_json::value::to_raw_value(value).map_err(not_an_object)?;
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((name.into(), Cow::Owned(value))),
        }
        Ok(())
    }

    /// Takes a field out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Cow<'a, RawValue>> {
        let place = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.remove(place).1)
    }

    /// The object as JSON.
    pub(crate) fn write(&self) -> Result<Bytes, Invalid> {
        serde_json::to_vec(self).map(Bytes::from).map_err(not_an_object)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push((Cow::Owned(name), Cow::Borrowed(value)));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &**value)?;
        }
        map.end()
    }
}

fn not_an_object(_: serde_json::Error) -> Invalid {
    Invalid::new("the request body is not a JSON object")
}
