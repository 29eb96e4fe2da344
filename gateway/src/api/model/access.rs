//! Users, sessions, tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::extract::{never_null, present};
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
    /// Since when the user cannot log in.
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
    pub role: Option<RoleName>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(deserialize_with = "never_null", skip_serializing_if = "Option::is_none")]
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

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// As events name it: `user:NAME`, `token:ID`.
    pub principal: String,
    pub name: Option<String>,
    pub role: RoleName,
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

/// A token of a program. Its secret was shown when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    pub id: String,
    pub name: String,
    pub role: RoleName,
    /// Areas that it is limited to; empty: all that the role allows.
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
    /// `monitoring`, `devices`, `enrolments`, `access`, `gateway`; none: all that the role allows.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// 90 days when absent, `null` for no end.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
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
