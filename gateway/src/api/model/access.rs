//! Users, sessions, tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::names;

use crate::api::request::extract::{never_null, present};
use crate::store::access::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => RoleName::Viewer,
            Role::Operator => RoleName::Operator,
            Role::Admin => RoleName::Admin,
        }
    }
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::Admin => Role::Admin,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: String,
    pub name: String,
    pub role: RoleName,
    pub created_at: String,
    /// When the user was disabled.
    pub disabled_at: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub name: String,
    pub role: RoleName,
    pub password: String,
}

/// What is absent stays as it is. Any change ends the user's sessions.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserChange {
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RoleName)]
    pub role: Option<RoleName>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub password: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    pub disabled: Option<bool>,
}

/// A one-time login, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct LoginLink {
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Where a browser uses it. Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub expires_at: String,
}

/// A name with a password, or a one-time link's secret.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    pub name: Option<String>,
    pub password: Option<String>,
    pub link: Option<String>,
}

/// The caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// `user:NAME` or `token:ID`, as in events.
    pub principal: String,
    pub name: Option<String>,
    pub role: RoleName,
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    /// When the session ends at the latest.
    pub expires_at: Option<String>,
    /// The session began with a one-time login: `PUT /session/password` needs no current password.
    pub may_choose_password: bool,
}

#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// Not needed in a session that began with a one-time login.
    pub current: Option<String>,
    pub new: String,
}

/// An API token. Its secret was shown when it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    pub id: String,
    pub name: String,
    pub role: RoleName,
    /// The areas that it is limited to; empty: all that the role allows.
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    pub last_used_at: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    pub name: String,
    pub role: RoleName,
    /// Empty or absent: all that the role allows.
    #[serde(default)]
    #[schema(value_type = Vec<names::ScopeName>)]
    pub scopes: Vec<String>,
    /// 90 days when absent, `null` for no end.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 316224000)]
    pub expires_in_s: Option<Option<i64>>,
}

/// A token with its secret, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiTokenWithSecret {
    pub token: ApiToken,
    /// Absent when the call was a repetition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}
