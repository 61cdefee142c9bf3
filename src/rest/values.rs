//! Values of parameters, each of which may come as text, too, as it does in a query.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;
use upload_gateway_core::upload::{InvalidDigest, Md5};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type},
    },
};

/// A whole number, or its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

/// A truth value, or `true` or `false` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// A list of texts, or a text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels(pub(super) Vec<String>);

/// A list of part numbers, or a text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartNumbers(pub(super) Vec<PartNumber>);

/// A part's number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartNumber(pub(super) u32);

/// A part's number, or `finish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartChoice {
    Number(PartNumber),
    Finish,
}

/// An MD5 in base64 or hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartMd5(pub(super) Md5);

/// An MD5 in base64 or hexadecimal. A `+` that a client did not encode in its query is read as a space there.
///
/// # Errors
/// It is none.
pub(super) fn md5(text: &str) -> Result<Md5, InvalidDigest> {
    text.replace(' ', "+").parse()
}

// === impl Number ===

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let number = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if is_digits(&text) => text.parse().ok(),
            _ => None,
        };
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom("must be a whole number, not negative"))
    }
}

impl PartialSchema for Number {
    fn schema() -> RefOr<Schema> {
        let number = plain(Type::Integer).minimum(Some(0));
        let digits = plain(Type::String).pattern(Some("^[0-9]+$"));
        any_of("A whole number, or its digits.", [number, digits])
    }
}

impl ToSchema for Number {}

// === impl Flag ===

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.as_str().unwrap_or_default() {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => value
                .as_bool()
                .map(Self)
                .ok_or_else(|| D::Error::custom("must be true or false")),
        }
    }
}

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        let text = plain(Type::String).enum_values(Some(["true", "false"]));
        any_of("A truth value, or its name.", [plain(Type::Boolean), text])
    }
}

impl ToSchema for Flag {}

// === impl Labels ===

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer).map(Self)
    }
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        list_of("Texts.", plain(Type::String))
    }
}

impl ToSchema for Labels {}

// === impl PartNumbers ===

impl<'de> Deserialize<'de> for PartNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer).map(Self)
    }
}

impl PartialSchema for PartNumbers {
    fn schema() -> RefOr<Schema> {
        list_of("Numbers of parts.", PartNumber::schema())
    }
}

impl ToSchema for PartNumbers {}

// === impl PartNumber ===

impl<'de> Deserialize<'de> for PartNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("must be the number of a part, from 1");
        let Number(number) = Number::deserialize(deserializer).map_err(|_| wrong())?;
        match u32::try_from(number) {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(number) => Ok(Self(number)),
        }
    }
}

impl PartialSchema for PartNumber {
    fn schema() -> RefOr<Schema> {
        let number = plain(Type::Integer).minimum(Some(1));
        let digits = plain(Type::String).pattern(Some("^0*[1-9][0-9]*$"));
        any_of("The number of a part, from 1.", [number, digits])
    }
}

impl ToSchema for PartNumber {}

// === impl PartChoice ===

impl<'de> Deserialize<'de> for PartChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "finish" {
            return Ok(Self::Finish);
        }
        let number = PartNumber::deserialize(value);
        number
            .map(Self::Number)
            .map_err(|error| D::Error::custom(format!("{error}, or `finish`")))
    }
}

impl PartialSchema for PartChoice {
    fn schema() -> RefOr<Schema> {
        let finish = plain(Type::String).enum_values(Some(["finish"]));
        let what = "The number of a part, or `finish`.";
        any_of(what, [PartNumber::schema(), finish.into()])
    }
}

impl ToSchema for PartChoice {}

// === impl PartMd5 ===

impl<'de> Deserialize<'de> for PartMd5 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let md5 = value.as_str().ok_or(InvalidDigest).and_then(md5);
        md5.map(Self).map_err(D::Error::custom)
    }
}

impl PartialSchema for PartMd5 {
    fn schema() -> RefOr<Schema> {
        let md5 = "^([A-Za-z0-9+/ ]{22}==|[0-9A-Fa-f]{32})$";
        let what = "An MD5 in base64 or hexadecimal.";
        let text = plain(Type::String).pattern(Some(md5));
        text.description(Some(what)).into()
    }
}

impl ToSchema for PartMd5 {}

fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items = match Value::deserialize(deserializer)? {
        Value::Array(items) => items,
        Value::String(text) => {
            let items = text.split(',').map(str::trim);
            let items = items.filter(|item| !item.is_empty());
            items.map(Value::from).collect()
        }
        _ => return Err(D::Error::custom("must be a list")),
    };
    let items: Result<Vec<T>, _> = items.into_iter().map(T::deserialize).collect();
    items.map_err(D::Error::custom)
}

fn list_of(what: &str, item: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    let list = ArrayBuilder::new().items(item.into()).build();
    let text = plain(Type::String).description(Some("separated by commas"));
    any_of(what, [Schema::Array(list), Schema::Object(text.build())])
}

fn plain(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn any_of<T: Into<RefOr<Schema>>>(what: &str, alternatives: [T; 2]) -> RefOr<Schema> {
    let builder = AnyOfBuilder::new().description(Some(what));
    let builder = alternatives.into_iter().fold(builder, AnyOfBuilder::item);
    RefOr::T(Schema::AnyOf(builder.build()))
}
