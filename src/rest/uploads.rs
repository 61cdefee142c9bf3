//! One upload, from its creation to its end.

use axum::{Json, extract::State, http::StatusCode};
use upload_gateway_core::gateway::{Next, Report, StepType};

use super::{
    Api, BASE, caller,
    failure::Failure,
    openapi::{Fault, WrongBody, WrongParameter, WrongStorage, WrongUpload},
    parameters::{EditParameters, FileParameters, UpdateParameters},
    request::{Id, Parameters},
    shapes::{Done, FirstStep, NextStep, ResidenceAnswer, UpdateAnswer},
};

/// Ask where a file would go
///
/// Checks the file as its creation does, and creates nothing.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/new",
    tag = "uploads",
    params(FileParameters),
    responses(
        (status = 200, description = "The kind of its store.", body = ResidenceAnswer),
        WrongParameter,
        WrongStorage,
        Fault
    )
)]
pub(super) async fn residence(
    State(api): State<Api>,
    Parameters(file): Parameters<FileParameters>,
) -> Result<Json<ResidenceAnswer>, Failure> {
    let (file, storage_id) = file.parse()?;
    let residence = api
        .gateway
        .signing
        .residence(&caller(), file, &storage_id)?;
    Ok(Json(ResidenceAnswer {
        residence: residence.into(),
    }))
}

/// Create an upload, or find the one the same create made before
///
/// The same is one of the same caller, storage, `file_name`, `file_size` and `file_id`, as long as it is open.
#[utoipa::path(
    post,
    context_path = BASE,
    path = "",
    tag = "uploads",
    params(FileParameters),
    request_body = Option<FileParameters>,
    responses(
        (status = 201, description = "Send the file, or begin a session for its parts.", body = FirstStep),
        (status = 200, description = "Found, and the store has some of its parts.", body = FirstStep),
        WrongParameter,
        WrongUpload,
        WrongStorage,
        WrongBody,
        Fault
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    Parameters(file): Parameters<FileParameters>,
) -> Result<(StatusCode, Json<FirstStep>), Failure> {
    let (file, storage_id) = file.parse()?;
    let step = api
        .gateway
        .signing
        .create_signed(&caller(), file, &storage_id)
        .await?;
    let status = match step.kind {
        StepType::Parts => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    Ok((status, Json(FirstStep::new(step, api.part_data))))
}

/// Report parts, and get the next one signed, or the commit
///
/// With `part` and `file_id` that part is signed; with neither the commit, once the store has all parts. With
/// `part_update` nothing is signed, and the answer is `{"ok": true}` in every phase of the upload.
#[utoipa::path(
    patch,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload."), UpdateParameters),
    request_body = Option<UpdateParameters>,
    responses(
        (status = 200, description = "The step to send to the store.", body = UpdateAnswer),
        WrongParameter,
        WrongUpload,
        WrongBody,
        Fault
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    Id(id): Id,
    Parameters(update): Parameters<UpdateParameters>,
) -> Result<Json<UpdateAnswer>, Failure> {
    let (report, next) = update.parse()?;
    if next == Next::Nothing {
        api.gateway.signing.report(&caller(), &id, report).await?;
        return Ok(Json(UpdateAnswer::Noted(Done::OK)));
    }
    let step = api
        .gateway
        .signing
        .sign_next(&caller(), &id, report, next)
        .await?;
    Ok(Json(UpdateAnswer::Next(step.into())))
}

/// Get a part signed, or the commit
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/edit",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload."), EditParameters),
    responses(
        (status = 200, description = "The step to send to the store.", body = NextStep),
        WrongParameter,
        WrongUpload,
        Fault
    )
)]
pub(super) async fn edit(
    State(api): State<Api>,
    Id(id): Id,
    Parameters(edit): Parameters<EditParameters>,
) -> Result<Json<NextStep>, Failure> {
    let (report, next) = (Report::default(), edit.parse()?);
    let step = api
        .gateway
        .signing
        .sign_next(&caller(), &id, report, next)
        .await?;
    Ok(Json(step.into()))
}

/// Mark an upload complete
///
/// The gateway verifies the object in the store first. Repeatable; a body is ignored.
#[utoipa::path(
    put,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload.")),
    responses(
        (status = 200, description = "It is complete.", body = Done),
        WrongUpload,
        Fault
    )
)]
pub(super) async fn complete(State(api): State<Api>, Id(id): Id) -> Result<Json<Done>, Failure> {
    api.gateway.signing.complete_upload(&caller(), &id).await?;
    Ok(Json(Done::OK))
}

/// Give an open upload up
///
/// What the store has of it is deleted. Repeatable; a complete upload stays.
#[utoipa::path(
    delete,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload.")),
    responses(
        (status = 202, description = "It is given up."),
        WrongUpload,
        Fault
    )
)]
pub(super) async fn remove(State(api): State<Api>, Id(id): Id) -> Result<StatusCode, Failure> {
    api.gateway.delete_upload(&caller(), &id).await?;
    Ok(StatusCode::ACCEPTED)
}
