//! Values of parameters. Each one may also be text, because values in a query are.

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

/// A whole number, or its digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

/// A text, or a number as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// A boolean, or `true` or `false` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// A list of texts, or one text in which commas separate them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tags(pub(super) Vec<String>);

/// A list of part numbers, or one text in which commas separate them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartNumbers(pub(super) Vec<PartNumber>);

/// The number of a part, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartNumber(pub(super) u32);

/// The number of a part, or `finish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartChoice {
    Number(PartNumber),
    Finish,
}

/// An MD5 in base64 or hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartMd5(pub(super) Md5);

/// An MD5 in base64 or hexadecimal. An empty text and null: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OptionalMd5(pub(super) Option<Md5>);

/// Parses an MD5 in base64 or hexadecimal. A space counts as `+`: that is how a query decodes a `+` that the client did not
/// encode.
///
/// # Errors
/// The text is not an MD5.
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
        any_of("A whole number, or its digits as text.", [number, digits])
    }
}

impl ToSchema for Number {}

// === impl Text ===

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(D::Error::custom("must be a text or a number")),
        }
    }
}

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        any_of(
            "A text or a number.",
            [plain(Type::String), plain(Type::Number)],
        )
    }
}

impl ToSchema for Text {}

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
        any_of(
            "A boolean, or `true` or `false` as text.",
            [plain(Type::Boolean), text],
        )
    }
}

impl ToSchema for Flag {}

// === impl Tags ===

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer).map(Self)
    }
}

impl PartialSchema for Tags {
    fn schema() -> RefOr<Schema> {
        list_of(
            "A list of texts, or one text in which commas separate them.",
            plain(Type::String),
        )
    }
}

impl ToSchema for Tags {}

// === impl PartNumbers ===

impl<'de> Deserialize<'de> for PartNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list(deserializer).map(Self)
    }
}

impl PartialSchema for PartNumbers {
    fn schema() -> RefOr<Schema> {
        list_of(
            "A list of part numbers, or one text in which commas separate them.",
            PartNumber::schema(),
        )
    }
}

impl ToSchema for PartNumbers {}

// === impl PartNumber ===

impl<'de> Deserialize<'de> for PartNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let invalid = || D::Error::custom("must be the number of a part, from 1");
        let Number(number) = Number::deserialize(deserializer).map_err(|_| invalid())?;
        match u32::try_from(number) {
            Ok(0) | Err(_) => Err(invalid()),
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
        let description = "The number of a part, or `finish`.";
        any_of(description, [PartNumber::schema(), finish.into()])
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
        let description = "An MD5 in base64 or hexadecimal.";
        let text = plain(Type::String).pattern(Some(md5));
        text.description(Some(description)).into()
    }
}

impl ToSchema for PartMd5 {}

// === impl OptionalMd5 ===

impl<'de> Deserialize<'de> for OptionalMd5 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_null() || value == "" {
            return Ok(Self(None));
        }
        let md5 = PartMd5::deserialize(value).map_err(D::Error::custom)?;
        Ok(Self(Some(md5.0)))
    }
}

impl PartialSchema for OptionalMd5 {
    fn schema() -> RefOr<Schema> {
        let empty = plain(Type::String).max_length(Some(0));
        any_of(
            "An MD5 in base64 or hexadecimal, or an empty text.",
            [PartMd5::schema(), empty.into()],
        )
    }
}

impl ToSchema for OptionalMd5 {}

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

fn list_of(description: &str, item: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    let list = ArrayBuilder::new().items(item.into()).build();
    let text = plain(Type::String).description(Some("separated by commas"));
    any_of(
        description,
        [Schema::Array(list), Schema::Object(text.build())],
    )
}

fn plain(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn any_of<T: Into<RefOr<Schema>>>(description: &str, alternatives: [T; 2]) -> RefOr<Schema> {
    let builder = AnyOfBuilder::new().description(Some(description));
    let builder = alternatives.into_iter().fold(builder, AnyOfBuilder::item);
    RefOr::T(Schema::AnyOf(builder.build()))
}
