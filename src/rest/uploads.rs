//! The calls on one upload.

use axum::{Json, extract::State, http::StatusCode};
use upload_gateway_core::gateway::{Next, Report, StepType};

use super::{
    api::{Api, BASE, CalledBy},
    failure::Failure,
    parameters::{EditParameters, FileParameters, UpdateParameters},
    request::{Id, Parameters},
    responses::{
        BodyErrors, PageErrors, ParameterErrors, ServerErrors, StorageErrors, UploadErrors,
    },
    shapes::{Done, FirstStep, NextStep, ResidenceAnswer, UpdateAnswer},
};

/// Ask which kind of store takes a file
///
/// Checks the file like a create, but creates no upload.
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/new",
    tag = "uploads",
    params(FileParameters),
    responses(
        (status = 200, description = "The kind of the store.", body = ResidenceAnswer),
        ParameterErrors,
        StorageErrors,
        ServerErrors
    )
)]
pub(super) async fn residence(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Parameters((file, storage_id)): Parameters<FileParameters>,
) -> Result<Json<ResidenceAnswer>, Failure> {
    let residence = api.gateway.signing.residence(&caller, file, &storage_id)?;
    Ok(Json(ResidenceAnswer {
        residence: residence.into(),
    }))
}

/// Create an upload, or find the open upload of an identical create
///
/// A create is identical if caller, storage, `file_name`, `file_size` and `file_id` are equal.
#[utoipa::path(
    post,
    context_path = BASE,
    path = "",
    tag = "uploads",
    params(FileParameters),
    request_body = Option<FileParameters>,
    responses(
        (status = 201, description = "The upload has no parts yet. Put the file, or start a session for parts.", body = FirstStep),
        (status = 200, description = "An open upload was found, and the store has some of its parts.", body = FirstStep),
        ParameterErrors,
        UploadErrors,
        StorageErrors,
        BodyErrors,
        PageErrors,
        ServerErrors
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Parameters((file, storage_id)): Parameters<FileParameters>,
) -> Result<(StatusCode, Json<FirstStep>), Failure> {
    let step = api
        .gateway
        .signing
        .create_signed(&caller, file, &storage_id)
        .await?;
    let status = match step.kind {
        StepType::Parts => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    Ok((status, Json(FirstStep::new(step, api.part_data))))
}

/// Report parts, and sign the next part or the commit
///
/// With `part` and `file_id`, that part is signed. Without both, the commit is signed if the store has all parts. With
/// `part_update`, nothing is signed, and the response is `{"ok": true}` in every phase of the upload.
#[utoipa::path(
    patch,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload id."), UpdateParameters),
    request_body = Option<UpdateParameters>,
    responses(
        (status = 200, description = "The request to send to the store.", body = UpdateAnswer),
        ParameterErrors,
        UploadErrors,
        BodyErrors,
        PageErrors,
        ServerErrors
    )
)]
pub(super) async fn update(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Id(id): Id,
    Parameters((report, next)): Parameters<UpdateParameters>,
) -> Result<Json<UpdateAnswer>, Failure> {
    if next == Next::Nothing {
        api.gateway.signing.report(&caller, &id, report).await?;
        return Ok(Json(UpdateAnswer::Reported(Done::OK)));
    }
    let step = api
        .gateway
        .signing
        .sign_next(&caller, &id, report, next)
        .await?;
    Ok(Json(UpdateAnswer::Next(step.into())))
}

/// Sign a part or the commit
#[utoipa::path(
    get,
    context_path = BASE,
    path = "/{id}/edit",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload id."), EditParameters),
    responses(
        (status = 200, description = "The request to send to the store.", body = NextStep),
        ParameterErrors,
        UploadErrors,
        PageErrors,
        ServerErrors
    )
)]
pub(super) async fn edit(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Id(id): Id,
    Parameters(next): Parameters<EditParameters>,
) -> Result<Json<NextStep>, Failure> {
    let report = Report::default();
    let step = api
        .gateway
        .signing
        .sign_next(&caller, &id, report, next)
        .await?;
    Ok(Json(step.into()))
}

/// Complete an upload
///
/// The gateway first verifies the object in the store. The call can be repeated. A body is ignored.
#[utoipa::path(
    put,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload id.")),
    responses(
        (status = 200, description = "The upload is complete.", body = Done),
        UploadErrors,
        PageErrors,
        ServerErrors
    )
)]
pub(super) async fn complete(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Id(id): Id,
) -> Result<Json<Done>, Failure> {
    api.gateway.signing.complete_upload(&caller, &id).await?;
    Ok(Json(Done::OK))
}

/// Abort an upload, or delete its file if it is complete
///
/// Its parts are deleted from the store, or its file, if it is complete. The call can be repeated.
#[utoipa::path(
    delete,
    context_path = BASE,
    path = "/{id}",
    tag = "uploads",
    params(("id" = String, Path, description = "The upload id.")),
    responses(
        (status = 202, description = "The upload is aborted, or its file deleted."),
        UploadErrors,
        PageErrors,
        ServerErrors
    )
)]
pub(super) async fn remove(
    State(api): State<Api>,
    CalledBy(caller): CalledBy,
    Id(id): Id,
) -> Result<StatusCode, Failure> {
    api.gateway.delete_upload(&caller, &id).await?;
    Ok(StatusCode::ACCEPTED)
}
