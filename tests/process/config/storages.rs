//! Storages that only variables describe.

use upload_gateway::config::{Config, ConfigError, Flags, StoreConfig, load};

use super::{TWO_STORAGES, load_text, owned};

const MEDIA: [(&str, &str); 4] = [
    ("UPLOAD_GATEWAY_STORAGE__MEDIA__KIND", "s3"),
    ("UPLOAD_GATEWAY_STORAGE__MEDIA__BUCKET", "photos"),
    ("UPLOAD_GATEWAY_STORAGE__MEDIA__REGION", "eu-central-1"),
    ("UPLOAD_GATEWAY_STORAGE__MEDIA__EXT_FILTER", "png, jpg"),
];

const ARCHIVE: [(&str, &str); 5] = [
    ("UPLOAD_GATEWAY_STORAGE__ARCHIVE_1__ID", "archive-1"),
    ("UPLOAD_GATEWAY_STORAGE__ARCHIVE_1__KIND", "azure"),
    ("UPLOAD_GATEWAY_STORAGE__ARCHIVE_1__ACCOUNT", "acme"),
    ("UPLOAD_GATEWAY_STORAGE__ARCHIVE_1__CONTAINER", "files"),
    ("UPLOAD_GATEWAY_STORAGE__ARCHIVE_1__DEFAULT", "true"),
];

fn load_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(None, owned(variables), &Flags::default())
}

fn ids(config: &Config) -> Vec<&str> {
    let storages = config.storage.iter();
    storages.map(|storage| &*storage.options.id).collect()
}

#[test]
fn a_storage_needs_no_file() {
    let config = load_variables(&MEDIA).unwrap();
    let [storage] = &*config.storage else {
        panic!("there is one storage");
    };
    assert_eq!(storage.options.id, "media");
    assert_eq!(storage.options.ext_filter, ["png", "jpg"]);
    let StoreConfig::S3(s3) = &storage.store else {
        panic!("it is S3");
    };
    assert_eq!(s3.bucket, "photos");
    assert_eq!(s3.region.as_deref(), Some("eu-central-1"));
    assert_eq!(config.default_storage(), Some(storage));
}

#[test]
fn several_storages_are_in_the_order_of_their_names() {
    let mut variables = [&MEDIA[..], &ARCHIVE].concat();
    for _ in 0..2 {
        let config = load_variables(&variables).unwrap();
        assert_eq!(ids(&config), ["archive-1", "media"]);
        assert_eq!(config.default_storage().unwrap().options.id, "archive-1");
        variables.reverse();
    }
}

#[test]
fn a_storage_of_variables_is_added_to_those_of_the_file() {
    let config = load_text(TWO_STORAGES, &MEDIA).unwrap();
    assert_eq!(ids(&config), ["media-1", "archive", "media"]);
    let changed = ("UPLOAD_GATEWAY_STORAGE__MEDIA_1__KIND", "s3");
    let config = load_text(TWO_STORAGES, &[changed]).unwrap();
    assert_eq!(ids(&config), ["media-1", "archive"]);
}

#[test]
fn a_mistake_is_named_with_its_variable() {
    let without_kind = load_variables(&MEDIA[1..]).unwrap_err();
    assert_eq!(without_kind.origin.as_deref(), Some(MEDIA[1].0));
    assert!(without_kind.problem.contains(MEDIA[0].0), "{without_kind}");

    let without_bucket = load_variables(&MEDIA[..1]).unwrap_err();
    assert_eq!(without_bucket.origin.as_deref(), Some(MEDIA[0].0));
    assert!(
        without_bucket.problem.contains("`bucket`"),
        "{without_bucket}"
    );

    let beside_others = load_text(TWO_STORAGES, &MEDIA[..1]).unwrap_err();
    assert_eq!(beside_others.origin.as_deref(), Some(MEDIA[0].0));

    for (key, value) in [
        ("BUKET", "a"),
        ("PART_SIZE", "1MiB"),
        ("ENDPOINT", "nowhere"),
    ] {
        let name = format!("UPLOAD_GATEWAY_STORAGE__MEDIA__{key}");
        let variables = [&MEDIA[..], &[(&*name, value)]].concat();
        let error = load_variables(&variables).unwrap_err();
        assert_eq!(error.origin, Some(name), "{error}");
    }
    let two = [&MEDIA[..], &ARCHIVE[..4]].concat();
    let error = load_variables(&two).unwrap_err();
    assert!(
        error.problem.ends_with("default = true; 0 have it"),
        "{error}"
    );
}
