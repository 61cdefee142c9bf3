//! Deserializes a merged table, with three additions to serde's rules:
//!
//! - An error names the path of its key.
//! - Text is accepted for a number or a boolean: environment variables contain only text.
//! - A key `x` that has a sibling `x_file` may be stored in the file of that name.

use std::fs;

use serde::{
    Deserialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer,
        MapAccess, SeqAccess, Visitor, value::StringDeserializer,
    },
    forward_to_deserialize_any,
};
use toml::{Table, Value, map};

use super::error::ConfigError;

/// The suffix of a key that names a file with the value of another key.
const FILE_SUFFIX: &str = "_file";

/// Text that stands for a boolean.
const BOOLEANS: [(&str, bool); 8] = [
    ("true", true),
    ("false", false),
    ("yes", true),
    ("no", false),
    ("on", true),
    ("off", false),
    ("1", true),
    ("0", false),
];

struct Reader(Value);

/// The keys of a table, each with its value.
struct Entries {
    rest: map::IntoIter<String, Value>,
    current: Option<(String, Value)>,
}

/// The items of a list, numbered from 0.
struct Items {
    rest: std::iter::Enumerate<std::vec::IntoIter<Value>>,
}

/// Records the keys of a struct instead of deserializing it.
struct KeysOf<'a>(&'a mut &'static [&'static str]);

/// Deserializes a table.
///
/// # Errors
/// The first key that is unknown, missing or invalid, by its path within the table.
pub(super) fn read<T: DeserializeOwned>(table: Table) -> Result<T, ConfigError> {
    T::deserialize(Reader(Value::Table(table)))
}

/// The keys of a struct that derives `Deserialize`.
pub(super) fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &[&str] = &[];
    // It always fails: only the names of the fields are of interest.
    let _ = T::deserialize(KeysOf(&mut keys));
    keys
}

/// Reads the files of the keys that are stored in one. `keys` are all keys of the table.
fn read_files(table: &mut Table, keys: &[&str]) -> Result<(), ConfigError> {
    for file_key in keys {
        let Some(key) = file_key.strip_suffix(FILE_SUFFIX) else {
            continue;
        };
        let Some(Value::String(file)) = table.get(*file_key) else {
            continue;
        };
        if !keys.contains(&key) {
            continue;
        }
        if table.contains_key(key) {
            let problem = format!("set either `{key}` or `{file_key}`, not both");
            return Err(ConfigError::new(key, problem));
        }
        let text = fs::read_to_string(file)
            .map_err(|error| ConfigError::new(*file_key, format!("cannot read {file}: {error}")))?;
        let text = text.trim_end_matches(['\r', '\n']);
        table.insert(key.to_owned(), Value::from(text));
    }
    Ok(())
}

// === impl Reader ===

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            if let Value::String(text) = &self.0
                && let Ok(number) = text.trim().parse()
            {
                return visitor.visit_i64(number);
            }
            self.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(items) => visitor.visit_seq(Items {
                rest: items.into_iter().enumerate(),
            }),
            Value::Table(table) => visitor.visit_map(Entries {
                rest: table.into_iter(),
                current: None,
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        if let Value::String(text) = &self.0
            && let Some((_, value)) = BOOLEANS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text.trim()))
        {
            return visitor.visit_bool(*value);
        }
        self.deserialize_any(visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let Value::Table(mut table) = self.0 else {
            return Err(ConfigError::custom("expected a table"));
        };
        read_files(&mut table, keys)?;
        Self(Value::Table(table)).deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(ConfigError::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

// === impl Entries ===

impl<'de> MapAccess<'de> for Entries {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ConfigError> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let key: StringDeserializer<ConfigError> = key.clone().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ConfigError> {
        let (key, value) = self.current.take().expect("serde asks for the key first");
        seed.deserialize(Reader(value))
            .map_err(|error| error.within(&key))
    }
}

// === impl Items ===

impl<'de> SeqAccess<'de> for Items {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let Some((index, value)) = self.rest.next() else {
            return Ok(None);
        };
        seed.deserialize(Reader(value))
            .map(Some)
            .map_err(|error| error.within(&index.to_string()))
    }
}

// === impl KeysOf ===

impl<'de> Deserializer<'de> for KeysOf<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = keys;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
