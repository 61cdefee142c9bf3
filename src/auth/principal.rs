//! Principals: the tenant, the subject and the roles that a credential stands for.

use serde::{Deserialize, Serialize};
use upload_gateway_core::{
    escape::is_hidden,
    gateway::{Caller, Roles},
    upload::Owner,
};

/// The longest tenant or subject, in bytes.
const MAX_LENGTH: usize = 255;

/// A role by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has uploads of its own. Every principal with a tenant is one.
    User,
    /// Acts on the uploads of its tenant, but sends no bytes for others.
    Support,
    /// As support, and downloads the files that are only for administrators.
    Admin,
    /// Reads and aborts the uploads of all tenants. It has no tenant, so no other role and no uploads of its own.
    Operator,
}

/// The principal with this tenant, subject and roles. An operator has no tenant, whatever its credential says.
///
/// # Errors
/// Says why there is no such principal: the tenant or the subject is empty, too long, or has invisible characters.
pub(super) fn principal(tenant: &str, subject: &str, roles: &[Role]) -> Result<Caller, String> {
    let is_operator = roles.contains(&Role::Operator);
    let tenant = match is_operator {
        true => "",
        false => checked("tenant", tenant)?,
    };
    Ok(Caller {
        owner: Owner {
            tenant: tenant.to_owned(),
            subject: checked("subject", subject)?.to_owned(),
        },
        roles: Roles {
            support: !is_operator && roles.contains(&Role::Support),
            admin: !is_operator && roles.contains(&Role::Admin),
            operator: is_operator,
        },
    })
}

fn checked<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    let is_refused = |character: char| character.is_control() || is_hidden(character);
    match text {
        "" => Err(format!("the {what} is empty")),
        long if long.len() > MAX_LENGTH => Err(format!("the {what} is longer than 255 bytes")),
        text if text.contains(is_refused) => Err(format!("the {what} has invisible characters")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_names_make_a_principal() {
        let caller = principal("acme", "service", &[Role::User, Role::Admin]).unwrap();
        assert_eq!(caller.owner.tenant, "acme");
        assert!(caller.roles.admin && !caller.roles.support && !caller.roles.operator);
    }

    #[test]
    fn an_operator_has_no_tenant_and_no_other_role() {
        let caller = principal("acme", "ops", &[Role::Operator, Role::Admin]).unwrap();
        assert_eq!((&*caller.owner.tenant, &*caller.owner.subject), ("", "ops"));
        assert!(caller.roles.operator && !caller.roles.admin);
    }

    #[test]
    fn a_principal_has_a_tenant_and_a_subject() {
        let long = "x".repeat(MAX_LENGTH + 1);
        for (tenant, subject) in [
            ("", "s"),
            ("t", ""),
            (&long, "s"),
            ("t", &long),
            ("t", "a\nb"),
            ("t\u{202e}", "s"),
        ] {
            assert!(
                principal(tenant, subject, &[]).is_err(),
                "{tenant:?} {subject:?}"
            );
        }
        assert!(principal("", "", &[Role::Operator]).is_err());
    }
}
