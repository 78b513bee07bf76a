//! Who a certificate says that its holder is.
//!
//! It is one URI among the certificate's subject alternative names (RFC 5280, section 4.2.1.6), in the form of
//! SPIFFE's (SPIFFE-ID, section 2): `spiffe://bazaar/ROLE/NAME`. A replica's name is its number.

use std::fmt;

use domain::ReplicaId;
use rustls::pki_types::CertificateDer;
use smol_str::SmolStr;
use webpki::EndEntityCert;

/// Before the role.
const PREFIX: &str = "spiffe://bazaar/";

/// The longest name.
const NAME_BYTES_MAX: usize = 128;

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Serves clients: reads and elects, places orders, holds sessions.
    Gateway,
    /// Owns the journal.
    Catalog,
    /// Keeps a copy of it, and leads where it is elected.
    Order,
    /// A person, or a program that acts for one.
    Operator,
    /// The same, who changes nothing.
    Viewer,
}

impl Role {
    /// All that there are.
    pub const ALL: [Self; 5] = [
        Self::Gateway,
        Self::Catalog,
        Self::Order,
        Self::Operator,
        Self::Viewer,
    ];

    /// As a certificate names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Catalog => "catalog",
            Self::Order => "order",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// Who somebody is, as the authority says that signed the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    role: Role,
    /// Printable, and of a path's safe characters.
    name: SmolStr,
}

/// Why a certificate says of nobody here who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPrincipal {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// There is no such name in it, or there are several.
    #[error(
        "the certificate has {0} names that begin with {PREFIX}; it is to have one, such as {PREFIX}order/3"
    )]
    Count(usize),
    /// There is one, and it is none.
    #[error(
        "the certificate's name `{0}` is not {PREFIX}ROLE/NAME with a role of gateway, catalog, order, operator or viewer; an order replica's name is its number"
    )]
    Invalid(String),
}

impl Principal {
    /// A service's, or an operator's.
    ///
    /// # Errors
    /// Where the name is empty or longer than 128 bytes, has characters other than letters, digits, `-`, `_` and `.`,
    /// or is not an order replica's number.
    pub fn new(role: Role, name: &str) -> Result<Self, NoPrincipal> {
        let principal = Self {
            role,
            name: name.into(),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_named = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        // A replica has one name only, whatever other numerals there are for it.
        let is_numbered = role != Role::Order
            || principal
                .replica()
                .is_some_and(|id| id.to_string() == principal.name);
        match is_named && is_numbered {
            true => Ok(principal),
            false => Err(NoPrincipal::Invalid(principal.to_string())),
        }
    }

    /// The one that a certificate names.
    ///
    /// # Errors
    /// Where there is none, more than one, or it is not valid.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NoPrincipal> {
        let certificate = EndEntityCert::try_from(certificate)
            .map_err(|error| NoPrincipal::Unreadable(error.to_string()))?;
        let mut uris = certificate
            .valid_uri_names()
            .filter(|uri| uri.starts_with(PREFIX));
        match (uris.next(), uris.count()) {
            (Some(uri), 0) => Self::parse(uri),
            (first, others) => Err(NoPrincipal::Count(usize::from(first.is_some()) + others)),
        }
    }

    fn parse(uri: &str) -> Result<Self, NoPrincipal> {
        let invalid = || NoPrincipal::Invalid(uri.escape_debug().to_string());
        let path = uri.strip_prefix(PREFIX).ok_or_else(invalid)?;
        let (role, name) = path.split_once('/').ok_or_else(invalid)?;
        let role = Role::ALL.into_iter().find(|known| known.name() == role);
        Self::new(role.ok_or_else(invalid)?, name).map_err(|_| invalid())
    }

    /// What it may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which one of that role it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which order replica it is, where it is one.
    pub fn replica(&self) -> Option<ReplicaId> {
        match self.role {
            Role::Order => self.name.parse().ok(),
            _ => None,
        }
    }
}

/// As the URI in its certificate.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}/{}",
            self.role.name(),
            self.name.escape_debug()
        )
    }
}

/// Who has to be at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whoever has that role.
    Role(Role),
    /// That replica.
    Replica(ReplicaId),
}

impl Expected {
    /// Whether somebody is who is expected.
    pub fn is(self, principal: &Principal) -> bool {
        match self {
            Self::Role(role) => principal.role == role,
            Self::Replica(id) => principal.replica() == Some(id),
        }
    }
}

/// As the URI in a certificate, with `NAME` for what may be any.
impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "{PREFIX}{}/NAME", role.name()),
            Self::Replica(id) => write!(f, "{PREFIX}{}/{id}", Role::Order.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_and_a_name_are_read_and_nothing_that_only_looks_like_them() {
        for text in [
            "spiffe://bazaar/gateway/edge-1.example_a",
            "spiffe://bazaar/catalog/a",
            "spiffe://bazaar/order/3",
            "spiffe://bazaar/operator/ada",
            "spiffe://bazaar/viewer/ada",
        ] {
            assert_eq!(Principal::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "spiffe://bazaar/gateway/",
            "spiffe://bazaar/gateway",
            "spiffe://bazaar/Gateway/a",
            "spiffe://bazaar/gateway/a/b",
            "spiffe://bazaar/gateway/a b",
            "spiffe://bazaar/gateway/a%62",
            "spiffe://bazaar/order/three",
            "spiffe://bazaar/order/03",
            "spiffe://bazaar/order/+3",
            "spiffe://bazaar/order/0",
            "spiffe://bazaar/admin/a",
            "spiffe://other/gateway/a",
            &format!("spiffe://bazaar/gateway/{}", "a".repeat(NAME_BYTES_MAX + 1)),
        ] {
            assert!(Principal::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_replica_is_told_from_the_others() {
        let third = Principal::new(Role::Order, "3").unwrap();
        let id = |id| ReplicaId::new(id).unwrap();
        assert_eq!(third.replica(), Some(id(3)));
        assert!(Expected::Replica(id(3)).is(&third));
        assert!(!Expected::Replica(id(2)).is(&third));
        assert!(Expected::Role(Role::Order).is(&third));
        let gateway = Principal::new(Role::Gateway, "3").unwrap();
        assert_eq!(gateway.replica(), None);
        assert!(!Expected::Replica(id(3)).is(&gateway));
        assert!(!Expected::Role(Role::Order).is(&gateway));
    }
}
