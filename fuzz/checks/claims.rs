//! Random claims of tokens.

use super::{claims::principal_of, config::IssuerConfig};
use crate::fuzzing::Input;

/// Claims name a principal with a subject, and with a tenant unless it is an operator, or are refused.
pub fn token_claims(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (tenant, subject, roles) = (input.text(), input.text(), input.text());
    let is_constant = !tenant.starts_with('/');
    let config = IssuerConfig {
        issuer: "issuer".into(),
        audiences: vec!["uploads".into()],
        leeway_seconds: 0,
        refresh_seconds: 1,
        jwks_file: Some("jwks.json".into()),
        tenant_is: is_constant.then(|| tenant.clone()),
        tenant: (!is_constant).then(|| tenant.clone()),
        subject,
        roles: (!roles.is_empty()).then_some(roles),
        ..IssuerConfig::default()
    };
    let Ok(claims) = serde_json::from_slice(input.0) else {
        return;
    };
    if config.validate().is_err() {
        return;
    }
    let Ok(caller) = principal_of(&config, &claims) else {
        return;
    };
    let owner = &caller.owner;
    for text in [&owner.tenant, &owner.subject] {
        assert!(
            text.len() <= 255 && !text.chars().any(char::is_control),
            "{text:?}"
        );
    }
    assert!(!owner.subject.is_empty());
    assert_eq!(owner.tenant.is_empty(), caller.roles.operator);
    assert!(!caller.roles.operator || !(caller.roles.admin || caller.roles.support));
    if is_constant && !caller.roles.operator {
        assert_eq!(owner.tenant, tenant);
    }
}
