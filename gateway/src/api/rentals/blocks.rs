//! Blocks: times in which a device cannot be booked, for example while it is repaired.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleetgate_engine::rental::occupancy::{Occupancy, Window};
use fleetgate_engine::time::Wall;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::device_types::{DeviceBlock, NewDeviceBlock};
use super::{allocate, begin, gate_changed, has_room, parse};
use crate::api::request::auth::Principal;
use crate::api::request::extract::{Body, Path, Query};
use crate::api::request::ids::{self, IdKind};
use crate::api::request::parse::{self as fields, Fields};
use crate::api::request::transaction::ApiTx;
use crate::api::response::page::Paging;
use crate::api::response::problem::Problem;
use crate::api::types::Page;
use crate::api::{AppState, devices};
use crate::store::devices::Device;
use crate::store::events::Object;
use crate::store::rentals::announcements;
use crate::store::rentals::blocks as stored;
use crate::store::rentals::occupancies::{self, Source};

/// Rentals that the text of a refusal and an event name. The field of the answer has all.
const MAX_NAMED: usize = 20;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(end))
}

/// Blocks of a device, the newest first.
#[utoipa::path(get, path = "/devices/{device}/blocks", operation_id = "list_blocks", tag = "rentals",
    security(("token" = ["devices:viewer"])),
    params(("device" = String, Path, description = "id or name"), Paging),
    responses((status = 200, body = Page<DeviceBlock>)))]
async fn list(
    State(app): State<AppState>,
    Path(device): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<DeviceBlock>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let mut conn = app.store.reader().await?;
    let device = devices::load(&mut conn, IdKind::Host.named(&device)).await?;
    let rows = stored::list(&mut conn, device.id, before, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |b| b.id.as_i64().to_string(), |b| to_api(&b, Vec::new()))))
}

/// Keeps a device from being booked.
///
/// 409 `rentals_covered`: rentals lie in that time, preparation and turnaround included; `rentals` names them. With
/// `force` they keep their device and their times; nothing reaches it and none begins while the block lasts.
#[utoipa::path(post, path = "/devices/{device}/blocks", operation_id = "create_block", tag = "rentals",
    security(("token" = ["devices:operator"])), request_body = NewDeviceBlock,
    params(("device" = String, Path, description = "id or name")),
    responses((status = 201, body = DeviceBlock)))]
async fn create(
    State(app): State<AppState>,
    who: Principal,
    Path(device): Path<String>,
    Body(new): Body<NewDeviceBlock>,
) -> Result<(StatusCode, Json<DeviceBlock>), Problem> {
    let mut write = begin(&app, &who).await?;
    let now = write.now;
    let device = devices::load(write.tx(), IdKind::Host.named(&device)).await?;
    let (occupied, reason) = parsed(&new, now)?;
    has_room(&mut write, 1).await?;
    let rentals = covered(&mut write, &device, occupied).await?;
    if !new.force && !rentals.is_empty() {
        let more = rentals.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let detail = format!(
            "{} is rented then: {}{more}: choose another time, or cover them with force",
            device.settings.name,
            rentals[..rentals.len().min(MAX_NAMED)].join(", ")
        );
        return Err(Problem::of_rentals("rentals_covered", detail, rentals));
    }
    let block = stored::Block {
        id: ids::new_id(now),
        device: device.id,
        device_name: device.settings.name,
        from: occupied.from,
        until: occupied.until,
        reason,
        author: write.by.clone(),
        created_at: now,
        ended: None,
    };
    stored::insert(write.tx(), &block).await?;
    occupancies::insert(write.tx(), block.device, Source::Block(block.id), occupied).await?;
    gate_changed(&mut write, block.device).await?;
    announcements::blocked(write.tx(), &block, now).await?;
    let shown = to_api(&block, rentals);
    let named = &shown.rentals[..shown.rentals.len().min(MAX_NAMED)];
    let data = json!({ "id": shown.id, "from": shown.from, "until": shown.until, "reason": shown.reason,
        "rentals": named, "covered": shown.rentals.len() });
    write.event("device.blocked", (Object::Device, block.device), "blocked", data).await?;
    write.commit().await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Returns when the device is blocked, and why.
fn parsed(new: &NewDeviceBlock, now: Wall) -> Result<(Occupancy, String), Problem> {
    let mut wrong = Fields::default();
    let reason =
        wrong.take("reason", fields::title(new.reason.clone()).and_then(is_given)).unwrap_or_default();
    let occupied = match &new.until {
        Some(until) => {
            let window = parse::window(&mut wrong, "", (new.from.as_deref(), until), now);
            window.map(|window: Window| Occupancy { from: window.from(), until: Some(window.until()) })
        }
        None => {
            let from = new.from.as_deref().map(|from| parse::begin(from, now)).transpose();
            let from = wrong.take("from", from).flatten().unwrap_or(now);
            Some(Occupancy { from, until: None })
        }
    };
    wrong.finish()?;
    let occupied = occupied.ok_or_else(|| Problem::invalid("until", "a time after from is expected"))?;
    Ok((occupied, reason))
}

fn is_given(reason: String) -> Result<String, String> {
    if reason.trim().is_empty() { Err("say why the device cannot be booked".to_owned()) } else { Ok(reason) }
}

/// Returns the rentals that a block would cover.
async fn covered(
    write: &mut ApiTx<'_>,
    device: &Device,
    occupied: Occupancy,
) -> Result<Vec<String>, Problem> {
    let now = write.now;
    let taken = occupancies::of_devices(write.tx(), &[device.id], now).await?;
    allocate::has_room(taken.get(&device.id).map_or(0, Vec::len), &device.settings.name)?;
    let taken = taken.get(&device.id).into_iter().flatten();
    let rentals =
        taken.filter(|taken| taken.occupancy.overlaps(occupied)).filter_map(|taken| match taken.source {
            Source::Rental(id) => Some(IdKind::Rental.text(id)),
            Source::Block(_) => None,
        });
    Ok(rentals.collect())
}

/// Ends a block now. One that has not begun never comes.
#[utoipa::path(delete, path = "/devices/{device}/blocks/{block}", operation_id = "end_block", tag = "rentals",
    security(("token" = ["devices:operator"])),
    params(("device" = String, Path, description = "id or name"), ("block" = String, Path, description = "id")),
    responses((status = 204)))]
async fn end(
    State(app): State<AppState>,
    who: Principal,
    Path((device, block)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut write = begin(&app, &who).await?;
    let (by, now) = (write.by.clone(), write.now);
    let device = devices::load(write.tx(), IdKind::Host.named(&device)).await?;
    let found = stored::find(write.tx(), IdKind::Block.parse(&block)?).await?;
    let found =
        found.filter(|found| found.device == device.id).ok_or_else(|| IdKind::Block.unknown(&block))?;
    let is_over = found.ended.is_some() || found.until.is_some_and(|until| until <= now);
    if !is_over {
        stored::end(write.tx(), found.id, now, &by).await?;
        occupancies::set_until(write.tx(), Source::Block(found.id), now).await?;
        gate_changed(&mut write, device.id).await?;
        announcements::unblocked(write.tx(), &found, now).await?;
        let data = json!({ "id": IdKind::Block.text(found.id) });
        write.event("device.unblocked", (Object::Device, device.id), "unblocked", data).await?;
        write.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

fn to_api(block: &stored::Block, rentals: Vec<String>) -> DeviceBlock {
    DeviceBlock {
        id: IdKind::Block.text(block.id),
        device: IdKind::Host.text(block.device),
        device_name: block.device_name.clone(),
        from: ids::time(block.from),
        until: block.until.map(ids::time),
        reason: block.reason.clone(),
        author: block.author.clone(),
        created_at: ids::time(block.created_at),
        ended_at: block.ended.as_ref().map(|(at, _)| ids::time(*at)),
        ended_by: block.ended.as_ref().map(|(_, by)| by.clone()),
        rentals,
    }
}
