//! Where the claims of a token name its principal.

use serde_json::Value;
use upload_gateway_core::gateway::Caller;

use super::config::IssuerConfig;
use crate::auth::principal::{Role, principal};

/// The bits of the number with which PlaceOS names roles.
const SUPPORT_BIT: u64 = 1;
const ADMIN_BIT: u64 = 2;

/// The principal that these claims name.
///
/// # Errors
/// Says which claim is missing or malformed.
pub(super) fn principal_of(config: &IssuerConfig, claims: &Value) -> Result<Caller, String> {
    let text = |pointer: &str| {
        let value = claims.pointer(pointer).and_then(first);
        value.ok_or_else(|| format!("the token has no text at {pointer}"))
    };
    let roles = match &config.roles {
        Some(pointer) => claims.pointer(pointer).map_or(Ok(Vec::new()), roles)?,
        None => Vec::new(),
    };
    let subject = text(&config.subject)?;
    // An operator needs no tenant.
    let tenant = match (&config.tenant_is, &config.tenant) {
        (Some(tenant), _) => tenant.as_str(),
        (None, Some(pointer)) => match text(pointer) {
            Err(_) if roles.contains(&Role::Operator) => "",
            tenant => tenant?,
        },
        (None, None) => "",
    };
    principal(tenant, subject, &roles)
}

/// A text, or the only text of a list: an audience can have both forms.
fn first(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => match items.as_slice() {
            [Value::String(only)] => Some(only),
            _ => None,
        },
        _ => None,
    }
}

/// The roles in a list of names, in a text of names, or in PlaceOS's number. Names of other systems are ignored.
fn roles(value: &Value) -> Result<Vec<Role>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(names) => Ok(names.split([' ', ',']).filter_map(role).collect()),
        Value::Array(names) => Ok(names
            .iter()
            .filter_map(Value::as_str)
            .filter_map(role)
            .collect()),
        Value::Number(bits) => {
            let bits = bits.as_u64().ok_or("the number of roles is negative")?;
            let has = |bit| bits & bit != 0;
            let roles = [(SUPPORT_BIT, Role::Support), (ADMIN_BIT, Role::Admin)].into_iter();
            Ok(roles
                .filter(|(bit, _)| has(*bit))
                .map(|(_, role)| role)
                .collect())
        }
        _ => Err("the roles are neither names nor a number".into()),
    }
}

fn role(name: &str) -> Option<Role> {
    match name {
        "user" => Some(Role::User),
        "support" => Some(Role::Support),
        "admin" => Some(Role::Admin),
        "operator" => Some(Role::Operator),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(tenant: &str, subject: &str, roles: Option<&str>) -> IssuerConfig {
        IssuerConfig {
            tenant: Some(tenant.into()),
            subject: subject.into(),
            roles: roles.map(Into::into),
            ..IssuerConfig::default()
        }
    }

    #[test]
    fn tokens_of_a_cluster_and_of_placeos_name_principals() {
        let cluster = json!({
            "sub": "system:serviceaccount:media:signage",
            "kubernetes.io": { "namespace": "media", "pod": { "name": "x" } },
        });
        let account = config("/kubernetes.io/namespace", "/sub", None);
        let caller = principal_of(&account, &cluster).unwrap();
        assert_eq!(caller.owner.tenant, "media");
        assert_eq!(caller.owner.subject, "system:serviceaccount:media:signage");
        let placeos = config("/aud", "/sub", Some("/u/p"));
        for (number, support, admin) in [
            (0, false, false),
            (1, true, false),
            (2, false, true),
            (3, true, true),
        ] {
            let claims = json!({ "aud": "acme.example", "sub": "user-1", "u": { "p": number } });
            let roles = principal_of(&placeos, &claims).unwrap().roles;
            assert_eq!((roles.support, roles.admin), (support, admin));
        }
    }

    #[test]
    fn roles_have_names_and_others_are_ignored() {
        let config = config("/t", "/sub", Some("/roles"));
        for roles in [
            json!(["admin", "editor", 7]),
            json!("admin editor"),
            json!("x,admin"),
        ] {
            let claims = json!({ "t": "acme", "sub": "s", "roles": roles });
            assert!(principal_of(&config, &claims).unwrap().roles.admin);
        }
        let claims = |roles: Value| json!({ "t": "acme", "sub": "s", "roles": roles });
        assert!(principal_of(&config, &claims(json!({}))).is_err());
        assert!(principal_of(&config, &claims(json!(-1))).is_err());
        let none = principal_of(&config, &claims(Value::Null)).unwrap();
        assert!(!none.roles.admin && !none.roles.support);
    }

    #[test]
    fn a_claim_that_names_no_one_is_refused() {
        let config = config("/t", "/sub", Some("/roles"));
        for claims in [
            json!({ "t": "acme" }),
            json!({ "sub": "s" }),
            json!({ "t": "", "sub": "s" }),
            json!({ "t": ["a", "b"], "sub": "s" }),
            json!({ "t": 7, "sub": "s" }),
            json!({ "t": "acme", "sub": "a\nb" }),
        ] {
            assert!(principal_of(&config, &claims).is_err(), "{claims}");
        }
        let operator = json!({ "sub": "ops", "roles": ["operator"] });
        assert!(principal_of(&config, &operator).unwrap().roles.operator);
    }
}
