//! The table of the HTTP interface: which request is which call, and who may make it.

use tollgate_types::Permission;

/// How a request becomes a call's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// From the path and the query.
    None,
    /// Its body is the message, but for what the path says.
    Message,
    /// Its body is the field of this name.
    Field(&'static str),
}

/// A request of the HTTP interface.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    /// Below [`PREFIX`]; `{name}` is a field of the message.
    pub path: &'static str,
    /// `Service/Method` of `tollgate.v1`.
    pub call: &'static str,
    pub body: Body,
    /// One of them is needed.
    pub permissions: &'static [Permission],
}

/// What all paths begin with.
pub const PREFIX: &str = "/admin/v1";

const KEYS: &[Permission] = &[Permission::Keys];
const REPORT: &[Permission] = &[Permission::Report];

const fn route(
    method: &'static str,
    path: &'static str,
    call: &'static str,
    body: Body,
    permissions: &'static [Permission],
) -> Route {
    Route {
        method,
        path,
        call,
        body,
        permissions,
    }
}

/// Every call that audit serves, but for health and reflection.
pub const ROUTES: [Route; 19] = [
    route("GET", "/keys", "Keys/List", Body::None, KEYS),
    route("POST", "/keys", "Keys/Create", Body::Message, KEYS),
    route("PUT", "/keys/{key}", "Keys/Update", Body::Message, KEYS),
    route("POST", "/keys/{key}/rotate", "Keys/Rotate", Body::Message, KEYS),
    route("POST", "/keys/{key}/disable", "Keys/Disable", Body::None, KEYS),
    route("POST", "/keys/{key}/enable", "Keys/Enable", Body::None, KEYS),
    route("GET", "/tenants", "Keys/ListTenants", Body::None, KEYS),
    route(
        "PUT",
        "/tenants/{organisation}",
        "Keys/PutTenant",
        Body::Field("rights"),
        KEYS,
    ),
    route(
        "PUT",
        "/tenants/{organisation}/{team}",
        "Keys/PutTenant",
        Body::Field("rights"),
        KEYS,
    ),
    route("GET", "/audit-log", "AuditLog/List", Body::None, &[Permission::Audit]),
    route("GET", "/limits", "Limits/List", Body::None, REPORT),
    route("PUT", "/limits/{limit.name}", "Limits/Put", Body::Field("limit"), KEYS),
    route("DELETE", "/limits/{limit}", "Limits/Remove", Body::None, KEYS),
    route(
        "POST",
        "/limits/{limit}/top-up",
        "Limits/TopUp",
        Body::Message,
        &[Permission::Keys, Permission::Approve],
    ),
    route("GET", "/prices", "Prices/List", Body::None, REPORT),
    route("POST", "/prices", "Prices/Import", Body::Message, &[Permission::Prices]),
    route("POST", "/prices/cost", "Prices/Cost", Body::Message, REPORT),
    route("GET", "/reports/cost", "Reports/Cost", Body::None, REPORT),
    route("GET", "/reports/{table}", "Reports/Read", Body::None, REPORT),
];
