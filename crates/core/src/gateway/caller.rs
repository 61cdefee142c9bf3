//! Callers, and what they may do with uploads: [`decide`] is the only place that decides.

use super::audit::audit;
use crate::{
    error::{Error, Kind, Reason, Result},
    state::Listing,
    upload::{Owner, Permissions, Upload, UploadId},
};

/// The caller of a use case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The owner of the caller's uploads. Empty without authentication, and then the same for all callers.
    pub owner: Owner,
    /// The roles of the caller.
    pub roles: Roles,
}

/// The roles of a caller. Every caller is a user of its tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// Acts on the uploads of its tenant.
    pub support: bool,
    /// Acts on the uploads of its tenant, and downloads the files that are only for administrators.
    pub admin: bool,
    /// Reads and aborts the uploads of all tenants.
    pub operator: bool,
}

/// Whose uploads a caller asks for. By default its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// The caller's own.
    #[default]
    Own,
    /// Those of one owner.
    Owner {
        /// The tenant; empty: that of the caller.
        tenant: String,
        /// The subject of the owner.
        subject: String,
    },
    /// Those of all owners in a tenant.
    Tenant {
        /// The tenant; empty: that of the caller.
        tenant: String,
    },
}

/// What a caller does with an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Creates it.
    Create,
    /// Reads, lists or watches its record.
    Read,
    /// Sends its bytes: in a stream, or with signed requests. Also reports them.
    Send,
    /// Completes it, after its bytes were sent.
    Complete,
    /// Aborts it.
    Delete,
    /// Reads its bytes.
    Download,
}

/// Whose upload it is, as the caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// The caller's own, also one that does not exist yet.
    Own,
    /// Another owner's in the same tenant.
    Tenant,
    /// Another tenant's, or one without an owner.
    Foreign,
}

/// Whether an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// The caller knows of the upload, but its roles do not allow the action.
    RoleMissing,
    /// The caller must not learn whether the upload exists.
    Hidden,
}

// === impl Scope ===

impl Scope {
    /// The scope of a request: the uploads of `owner`, of all owners in a tenant, or by default the caller's own. An empty text
    /// is not given.
    ///
    /// # Errors
    /// `InvalidArgument` if both an owner and all are asked for.
    pub fn new(owner: String, all_owners: bool, tenant: String) -> Result<Self> {
        match (owner.is_empty(), all_owners || !tenant.is_empty()) {
            (false, _) if all_owners => {
                Err(Error::invalid("owner", "not together with all_owners"))
            }
            (false, _) => Ok(Self::Owner {
                tenant,
                subject: owner,
            }),
            (true, true) => Ok(Self::Tenant { tenant }),
            (true, false) => Ok(Self::Own),
        }
    }
}

// === impl Action ===

impl Action {
    /// Whether it leaves the record as it is.
    pub(super) fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Download)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Send => "send",
            Self::Complete => "complete",
            Self::Delete => "delete",
            Self::Download => "download",
        }
    }
}

// === impl Caller ===

impl Caller {
    /// Checks that the caller may create an upload.
    ///
    /// # Errors
    /// `PermissionDenied` for a caller without a tenant under authentication.
    pub(super) fn may_create(&self) -> Result<()> {
        let verdict = decide(
            self.roles,
            Action::Create,
            self.creates_in(),
            Permissions::None,
        );
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::RoleMissing | Verdict::Hidden => {
                let refused = Err(role_missing());
                audit(&self.owner, Action::Create.name(), None, &refused);
                refused
            }
        }
    }

    /// Checks that the caller may do `action` with the upload that was `found`, and returns it.
    ///
    /// # Errors
    /// `NotFound` if no upload was found, or if the caller must not know of it; `PermissionDenied` if only its roles are missing.
    pub(super) fn permit(
        &self,
        action: Action,
        id: &UploadId,
        found: Option<Upload>,
    ) -> Result<Upload> {
        let verdict = found.as_ref().map_or(Verdict::Hidden, |upload| {
            let relation = self.relation(&upload.owner);
            decide(self.roles, action, relation, readers(upload))
        });
        let refused = match (verdict, found) {
            (Verdict::Allowed, Some(upload)) => return Ok(upload),
            (Verdict::RoleMissing, _) => Err(role_missing()),
            (Verdict::Hidden | Verdict::Allowed, _) => Err(Error::upload_not_found(id)),
        };
        // The use case logs every result of the other actions.
        if matches!(action, Action::Read | Action::Send) {
            audit(&self.owner, action.name(), Some(id), &refused);
        }
        refused
    }

    /// The listing of `scope`, if the caller may read it.
    ///
    /// # Errors
    /// `PermissionDenied`, whether there are such uploads or not; `InvalidArgument` if an operator names no tenant.
    pub(super) fn may_list(&self, scope: &Scope) -> Result<Listing> {
        let tenant_or_own = |tenant: &String| match tenant.is_empty() {
            true => self.owner.tenant.clone(),
            false => tenant.clone(),
        };
        let (listing, relation) = match scope {
            Scope::Own => return Ok(self.owner.clone().into()),
            Scope::Owner { tenant, subject } => {
                let owner = Owner {
                    tenant: tenant_or_own(tenant),
                    subject: subject.clone(),
                };
                let relation = self.relation(&owner);
                (owner.into(), relation)
            }
            Scope::Tenant { tenant } => {
                let tenant = tenant_or_own(tenant);
                if tenant.is_empty() {
                    return match self.roles.operator {
                        true => Err(Error::invalid("tenant", "required: the caller has none")),
                        // Without authentication all callers are one owner.
                        false => Ok(self.owner.clone().into()),
                    };
                }
                let relation = match tenant == self.owner.tenant {
                    true => Relation::Tenant,
                    false => Relation::Foreign,
                };
                (Listing::Tenant(tenant), relation)
            }
        };
        match decide(self.roles, Action::Read, relation, Permissions::None) {
            Verdict::Allowed => Ok(listing),
            Verdict::RoleMissing | Verdict::Hidden => {
                let refused = Err(role_missing());
                audit(&self.owner, "list", None, &refused);
                refused
            }
        }
    }

    /// Checks that the caller is an operator, who may do `action` with the gateway.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub fn may_operate(&self, action: &'static str) -> Result<()> {
        if self.roles.operator {
            return Ok(());
        }
        let refused = Err(role_missing());
        audit(&self.owner, action, None, &refused);
        refused
    }

    /// Logs what an operator has done.
    pub fn operated<T>(&self, action: &'static str, result: &Result<T>) {
        audit(&self.owner, action, None, result);
    }

    /// Whether the caller may still read the record of an upload.
    pub fn may_read(&self, upload: &Upload) -> bool {
        let relation = self.relation(&upload.owner);
        decide(self.roles, Action::Read, relation, readers(upload)) == Verdict::Allowed
    }

    fn relation(&self, owner: &Owner) -> Relation {
        if *owner == self.owner {
            Relation::Own
        } else if owner.tenant == self.owner.tenant && !owner.tenant.is_empty() {
            Relation::Tenant
        } else {
            Relation::Foreign
        }
    }

    /// Where the uploads of the caller are: nowhere, if it is an operator without a tenant.
    fn creates_in(&self) -> Relation {
        match self.roles.operator && self.owner.tenant.is_empty() {
            true => Relation::Foreign,
            false => Relation::Own,
        }
    }
}

/// Who in the tenant may download the file.
fn readers(upload: &Upload) -> Permissions {
    match upload.file.public {
        true => Permissions::None,
        false => upload.file.permissions,
    }
}

/// Whether `action` is allowed, by the roles of the caller, whose upload it is, and who in its tenant may download it:
/// `None` is all of it.
fn decide(roles: Roles, action: Action, relation: Relation, readers: Permissions) -> Verdict {
    let is_staff = roles.support || roles.admin;
    match (relation, action) {
        (Relation::Own, _) => Verdict::Allowed,
        (_, Action::Read | Action::Delete) if roles.operator => Verdict::Allowed,
        (Relation::Tenant, Action::Download) => match readers {
            Permissions::None => Verdict::Allowed,
            Permissions::Support if is_staff => Verdict::Allowed,
            Permissions::Admin if roles.admin => Verdict::Allowed,
            Permissions::Support | Permissions::Admin => Verdict::RoleMissing,
        },
        (Relation::Tenant, Action::Read | Action::Complete | Action::Delete) if is_staff => {
            Verdict::Allowed
        }
        (Relation::Tenant, Action::Send | Action::Create) if is_staff => Verdict::RoleMissing,
        _ if roles.operator => Verdict::RoleMissing,
        _ => Verdict::Hidden,
    }
}

fn role_missing() -> Error {
    Error::new(
        Kind::PermissionDenied,
        Reason::RoleMissing,
        "the roles of the caller do not allow this",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Roles = Roles {
        support: false,
        admin: false,
        operator: false,
    };
    const SUPPORT: Roles = Roles {
        support: true,
        ..USER
    };
    const ADMIN: Roles = Roles {
        admin: true,
        ..USER
    };
    const OPERATOR: Roles = Roles {
        operator: true,
        ..USER
    };
    const ACTIONS: [Action; 6] = [
        Action::Create,
        Action::Read,
        Action::Send,
        Action::Complete,
        Action::Delete,
        Action::Download,
    ];

    fn caller(tenant: &str, subject: &str, roles: Roles) -> Caller {
        Caller {
            owner: Owner {
                tenant: tenant.into(),
                subject: subject.into(),
            },
            roles,
        }
    }

    fn verdicts(roles: Roles, relation: Relation, readers: Permissions) -> String {
        let letter = |action| match decide(roles, action, relation, readers) {
            Verdict::Allowed => 'A',
            Verdict::RoleMissing => 'R',
            Verdict::Hidden => '-',
        };
        ACTIONS.into_iter().map(letter).collect()
    }

    #[test]
    fn the_table_of_roles_and_actions() {
        // Create, Read, Send, Complete, Delete, Download.
        for (roles, relation, readers, expected) in [
            (USER, Relation::Own, Permissions::Admin, "AAAAAA"),
            (SUPPORT, Relation::Own, Permissions::Admin, "AAAAAA"),
            (USER, Relation::Tenant, Permissions::None, "-----A"),
            (USER, Relation::Tenant, Permissions::Support, "-----R"),
            (USER, Relation::Tenant, Permissions::Admin, "-----R"),
            (SUPPORT, Relation::Tenant, Permissions::None, "RARAAA"),
            (SUPPORT, Relation::Tenant, Permissions::Support, "RARAAA"),
            (SUPPORT, Relation::Tenant, Permissions::Admin, "RARAAR"),
            (ADMIN, Relation::Tenant, Permissions::Support, "RARAAA"),
            (ADMIN, Relation::Tenant, Permissions::Admin, "RARAAA"),
            (USER, Relation::Foreign, Permissions::None, "------"),
            (SUPPORT, Relation::Foreign, Permissions::None, "------"),
            (ADMIN, Relation::Foreign, Permissions::None, "------"),
            (OPERATOR, Relation::Foreign, Permissions::None, "RARRAR"),
            (OPERATOR, Relation::Foreign, Permissions::Admin, "RARRAR"),
        ] {
            let found = verdicts(roles, relation, readers);
            assert_eq!(found, expected, "{roles:?} {relation:?} {readers:?}");
        }
    }

    #[test]
    fn uploads_without_an_owner_are_foreign_to_all_principals() {
        let unowned = Owner::default();
        assert_eq!(Caller::default().relation(&unowned), Relation::Own);
        assert_eq!(
            caller("a", "x", ADMIN).relation(&unowned),
            Relation::Foreign
        );
        let operator = caller("", "ops", OPERATOR);
        assert_eq!(operator.relation(&unowned), Relation::Foreign);
        assert_eq!(
            operator.may_create().unwrap_err().reason(),
            Reason::RoleMissing
        );
        assert!(Caller::default().may_create().is_ok());
    }

    #[test]
    fn who_may_list_which_uploads() {
        let own = |subject: &str| Scope::Owner {
            tenant: String::new(),
            subject: subject.into(),
        };
        let in_b = Scope::Owner {
            tenant: "b".into(),
            subject: "x".into(),
        };
        let tenant = |tenant: &str| Scope::Tenant {
            tenant: tenant.into(),
        };
        for (roles, allowed) in [
            (USER, [true, true, false, false, false, false, false]),
            (SUPPORT, [true, true, true, true, true, false, false]),
            (ADMIN, [true, true, true, true, true, false, false]),
        ] {
            let caller = caller("a", "x", roles);
            let scopes = [
                Scope::Own,
                own("x"),
                own("y"),
                tenant(""),
                tenant("a"),
                tenant("b"),
                in_b.clone(),
            ];
            let found = scopes.map(|scope| caller.may_list(&scope).is_ok());
            assert_eq!(found, allowed, "{roles:?}");
        }
        let operator = caller("", "ops", OPERATOR);
        assert_eq!(
            operator.may_list(&tenant("b")).unwrap(),
            Listing::Tenant("b".into())
        );
        assert!(operator.may_list(&in_b).is_ok());
        assert_eq!(
            operator.may_list(&tenant("")).unwrap_err().reason(),
            Reason::InvalidField
        );
        assert!(Caller::default().may_list(&own("y")).is_err());
        assert!(Caller::default().may_list(&tenant("")).is_ok());
    }

    #[test]
    fn the_same_subject_in_another_tenant_is_foreign() {
        let owner = caller("a", "x", USER).owner;
        assert_eq!(caller("a", "x", USER).relation(&owner), Relation::Own);
        assert_eq!(caller("a", "y", USER).relation(&owner), Relation::Tenant);
        assert_eq!(caller("b", "x", ADMIN).relation(&owner), Relation::Foreign);
    }
}
