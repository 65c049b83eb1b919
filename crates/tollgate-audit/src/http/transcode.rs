//! JSON to messages and back, by the contracts' own descriptors.

use bytes::{BufMut, Bytes, BytesMut};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    SerializeOptions, prost::Message,
};
use serde_json::{Map, Value, json};
use tollgate_proto::DESCRIPTORS;
use tollgate_types::{ErrorCode, Failure};

/// A message on the wire of gRPC begins with a flag and its length.
const HEAD: usize = 5;

/// A call as HTTP knows it.
#[derive(Debug, Clone)]
pub(super) struct Call(MethodDescriptor);

/// The contracts, read from their descriptors.
pub(super) fn pool() -> Result<DescriptorPool, prost_reflect::DescriptorError> {
    DescriptorPool::decode(DESCRIPTORS)
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message)
}

/// Puts a value where a path of names leads; nothing may be said twice.
pub(super) fn put(fields: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), Failure> {
    let twice = || {
        wrong(format!(
            "{path}: is given twice, or inside something that is not an object"
        ))
    };
    let (outer, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut inner = fields;
    for part in outer.split('.').filter(|part| !part.is_empty()) {
        let next = inner.entry(part).or_insert_with(|| Value::Object(Map::new()));
        inner = next.as_object_mut().ok_or_else(twice)?;
    }
    match inner.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(twice()),
    }
}

impl Call {
    /// `Service/Method` of the contracts.
    pub(super) fn find(pool: &DescriptorPool, name: &str) -> Option<Self> {
        let (service, method) = name.split_once('/')?;
        let service = pool.get_service_by_name(&format!("tollgate.v1.{service}"))?;
        service.methods().find(|one| one.name() == method).map(Self)
    }

    /// The path of the call over gRPC.
    pub(super) fn path(&self) -> String {
        format!("/{}/{}", self.0.parent_service().full_name(), self.0.name())
    }

    /// A text of a path or a query as the field it is for: `true` for flags, and for a choice its name without what all its names
    /// begin with.
    pub(super) fn value(&self, path: &str, text: String) -> Value {
        let Some(field) = field(&self.0.input(), path) else {
            return Value::String(text);
        };
        match field.kind() {
            Kind::Bool => text.parse().map_or(Value::String(text), Value::Bool),
            Kind::Enum(choices) => {
                let none = choices.default_value().name().to_owned();
                let prefix = none.strip_suffix("UNSPECIFIED").unwrap_or_default();
                let long = format!("{prefix}{}", text.to_ascii_uppercase().replace('-', "_"));
                Value::String(choices.get_value_by_name(&long).map_or(text, |_| long))
            }
            _ => Value::String(text),
        }
    }

    /// The request, framed as gRPC has it.
    pub(super) fn request(&self, fields: Map<String, Value>) -> Result<Bytes, Failure> {
        // May repeat a value: requests here hold no prompt and no secret.
        let fields = Value::Object(fields);
        let message = self.read(&fields).map_err(|error| {
            let wrong_one = fields.as_object().into_iter().flatten().find_map(|(name, value)| {
                let error = self.read(&json!({ name: value })).err()?;
                Some(format!("{name}: {error}"))
            });
            wrong(wrong_one.unwrap_or_else(|| error.to_string()))
        })?;
        let mut framed = BytesMut::with_capacity(HEAD + message.encoded_len());
        framed.put_u8(0);
        let length = u32::try_from(message.encoded_len()).map_err(|_| wrong("the request is too large"))?;
        framed.put_u32(length);
        message
            .encode(&mut framed)
            .map_err(|_| wrong("the request is too large"))?;
        Ok(framed.freeze())
    }

    fn read(&self, fields: &Value) -> Result<DynamicMessage, serde_json::Error> {
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(self.0.input(), fields, &options)
    }

    /// The answer as JSON.
    pub(super) fn answer(&self, framed: &[u8]) -> Option<Vec<u8>> {
        let message = DynamicMessage::decode(self.0.output(), framed.get(HEAD..)?).ok()?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(false);
        let mut json = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut json, &options).ok()?;
        Some(json.into_inner())
    }
}

fn field(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let found = message.get_field_by_name(first)?;
    match rest {
        None => Some(found),
        Some(rest) => field(found.kind().as_message()?, rest),
    }
}
