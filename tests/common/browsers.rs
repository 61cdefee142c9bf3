//! CORS rules of the stores, so that pages of other origins may use them.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use upload_gateway::config::{Config, StoreConfig};

use super::{AzureBackend, s3_client};

/// For all origins.
const ACCOUNT_RULE: &str = "<StorageServiceProperties><Cors><CorsRule><AllowedOrigins>*</AllowedOrigins>\
    <AllowedMethods>GET,HEAD,PUT</AllowedMethods><AllowedHeaders>*</AllowedHeaders>\
    <ExposedHeaders>ETag</ExposedHeaders><MaxAgeInSeconds>3600</MaxAgeInSeconds></CorsRule></Cors>\
    </StorageServiceProperties>";

/// Sets the rule of the first storage of `config`. The embedded S3 needs none.
pub async fn allow_pages(config: &Config, origin: &str) {
    match config.storage.first().map(|storage| &storage.store) {
        Some(StoreConfig::S3(bucket)) => {
            let secret = bucket.secret_access_key.as_ref().unwrap().expose();
            let id = bucket.access_key_id.as_ref().unwrap();
            let endpoint = bucket.endpoint.as_ref().unwrap();
            let rule = CorsRule::builder()
                .allowed_origins(origin)
                .set_allowed_methods(Some(["GET", "HEAD", "POST", "PUT"].map(Into::into).into()))
                .allowed_headers("*")
                .expose_headers("ETag")
                .build()
                .unwrap();
            let rules = CorsConfiguration::builder().cors_rules(rule);
            s3_client(endpoint.as_str(), id, secret)
                .put_bucket_cors()
                .bucket(&bucket.bucket)
                .cors_configuration(rules.build().unwrap())
                .send()
                .await
                .unwrap();
        }
        // All tests share one account, so the rule is the same for all of them.
        Some(StoreConfig::Azure(account)) => {
            let endpoint = account.endpoint.as_ref().unwrap().as_str();
            set_account_rule(endpoint, ACCOUNT_RULE.into()).await;
        }
        None => {}
    }
}

/// Sets properties of the Azure account at `endpoint`, in the XML of its API.
pub async fn set_account_rule(endpoint: &str, properties: String) {
    let set = reqwest::Client::new()
        .put(AzureBackend::properties_url(endpoint))
        .body(properties);
    let answer = set.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
}
