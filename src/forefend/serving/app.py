"""The HTTP application: what each address answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.batch_size import out_of_memory
from forefend.serving import metrics as prometheus
from forefend.serving.answers import Answers, Problem, Shown, answer_json
from forefend.serving.body import PICTURES, read_images
from forefend.serving.gate import PATHS, Gate, Traffic
from forefend.serving.limits import Limits
from forefend.serving.metrics import Metrics
from forefend.serving.micro_batching import MicroBatcher
from forefend.serving.page import HEADERS, page
from forefend.serving.pictures import Expected
from forefend.serving.pipeline import Answer, Pipeline
from forefend.serving.request_error import RequestError

DECODERS = 4  # threads that decode bodies, each of which may hold a large picture


@dataclass(frozen=True)
class Service:
    """A pipeline and how it is served.

    Args:
        pipeline: what answers.
        info: what `/info` returns.
        limits: what is accepted.
        window: seconds to wait for more images after the first of a batch.
        resize: whether pictures of other sizes are resized and cropped.
        traffic: the requests of this server.
    """

    pipeline: Pipeline
    info: Mapping[str, Any]
    limits: Limits
    window: float
    resize: bool
    traffic: Traffic

    @property
    def expected(self) -> Expected:
        """The images that are taken."""
        pipeline = self.pipeline
        return Expected(pipeline.shape, self.resize, pipeline.any_size, self.limits.most_pixels)


def application(service: Service) -> FastAPI:
    """Return the application."""
    counted, pipeline = Metrics(), service.pipeline
    threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    batcher: MicroBatcher[tuple[Tensor, bool], Answer] = MicroBatcher(
        partial(_answers, pipeline),
        window=service.window,
        most=service.limits.most_images,
        observe=counted.batches.observe,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await batcher.close()
        threads.shutdown()

    # The pages of Swagger and ReDoc load scripts from other machines.
    app = FastAPI(title="forefend", description=_ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Gate, limits=service.limits, metrics=counted, traffic=service.traffic)
    _add_handlers(app)
    bodies = {kind: {"schema": schema} for kind, schema in _BODIES.items()}

    @app.post(
        "/predict",
        response_model=Answers,
        response_model_exclude_none=False,
        responses={status: {"model": Problem} for status in (400, 408, 413, 415, 422, 429, 503)},
        openapi_extra={"requestBody": {"required": True, "content": bodies}},
    )
    async def predict(
        request: Request,
        bare: Annotated[bool, Query(description="ask the classifier without the defense too")] = False,
        images: Annotated[Shown, Query(description="return the processed images, as PNG or arrays")] = "none",
        top: Annotated[int, Query(ge=1, le=1000, description="classes that are named")] = 5,
    ) -> Any:
        """Classify one image or several, each on its own."""
        if bare and not pipeline.alone:
            raise RequestError(422, f"{pipeline.name} was trained with the defense and is not used alone: omit bare.")
        x = await read_images(request, service.expected, service.limits.most_images, threads)
        request.state.images = len(x)
        found = await batcher.submit([(image, bare) for image in x])
        counted.images.inc(len(x))
        one = partial(answer_json, pipeline, top=top, shown=images)
        if images == "none":  # microseconds, and the way to another thread takes longer
            answers = list(map(one, x, found))
        else:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(threads, lambda: list(map(one, x, found)))
        return JSONResponse(
            {
                "classifier": pipeline.name,
                "classifier_fingerprint": service.info["classifier"]["fingerprint"],
                "defense": service.info["defense"]["identity"],
                "answers": answers,
            }
        )

    _add_descriptions(app, service.info, counted)
    return app


def _add_descriptions(app: FastAPI, description: Mapping[str, Any], counted: Metrics) -> None:
    """Answer every address but `/predict`."""

    @app.head("/health", include_in_schema=False)  # of load balancers; the server sends no body after HEAD
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that requests are answered; 503 once the server stops."""
        return {"status": "ok"}

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """Return the card of the defense, what was measured of it, the images that are taken and the limits."""
        return dict(description)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return counters in the text format of Prometheus."""
        return Response(counted.text(), media_type=prometheus.TYPE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page(), headers=HEADERS)


def _answers(pipeline: Pipeline, items: Sequence[tuple[Tensor, bool]]) -> list[Answer]:
    try:
        return pipeline.answers([x for x, _ in items], [bare for _, bare in items])
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise RequestError(413, "The memory does not suffice for such images: send fewer or smaller ones.") from error


def _add_handlers(app: FastAPI) -> None:
    """Answer every error with one sentence."""

    @app.exception_handler(InputError)
    async def refused(request: Request, error: InputError) -> JSONResponse:
        status, headers = (error.status, error.headers) if isinstance(error, RequestError) else (422, None)
        return JSONResponse({"detail": str(error)}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"The parameter {first['loc'][-1]} is not valid: {first['msg']}."}, 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        sentence = f"{str(error.detail).rstrip('.')}."
        if error.status_code == 404:
            sentence = f"There is no such address, expected one of {', '.join(PATHS)}."
        if error.status_code == 405:
            sentence = f"{request.method} is not answered here: /predict takes POST, all others GET, /health HEAD too."
        return JSONResponse({"detail": sentence}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # its client has left


_ABOUT = "A classifier behind a defense that was trained adversarially. Errors are one sentence in `detail`."
_BODIES: dict[str, Any] = {
    **{kind: {"type": "string", "format": "binary"} for kind in PICTURES[:2]},
    "multipart/form-data": {
        "type": "object",
        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    },
    "application/json": {
        "type": "object",
        "required": ["images", "range"],
        "additionalProperties": False,
        "properties": {
            "images": {"type": "array", "items": {"type": "array", "items": {}}},
            "range": {"type": "string", "enum": ["0-255", "0-1"]},
        },
    },
}
