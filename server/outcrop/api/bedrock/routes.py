"""Routes of the `bedrock` service, and of asynchronous invocations, which are kept as its resources are."""

from __future__ import annotations

from starlette.routing import Route

from outcrop.api.async_invoke import shapes as async_invoke
from outcrop.api.async_invoke.job import AsyncInvocation
from outcrop.api.async_invoke.routes import AsyncInvokes
from outcrop.api.batch import shapes as batch
from outcrop.api.batch.job import BatchJob
from outcrop.api.batch.routes import InvocationJobs
from outcrop.api.bedrock.followed import Followed
from outcrop.api.bedrock.foundation_models import FoundationModels
from outcrop.api.bedrock.inference_profiles import InferenceProfiles
from outcrop.api.bedrock.options import ControlOptions
from outcrop.api.bedrock.plane import ControlPlane
from outcrop.api.bedrock.tagging import Tagging
from outcrop.api.guardrails.routes import Guardrails
from outcrop.api.imports import shapes as imports
from outcrop.api.imports.job import ImportJob
from outcrop.api.imports.registry import ImportedModels
from outcrop.api.imports.routes import ModelImports
from outcrop.api.inference import Inference
from outcrop.api.invocation_log.delivery import Delivery
from outcrop.api.invocation_log.log import InvocationLog
from outcrop.api.invocation_log.routes import InvocationLogging
from outcrop.api.job_runner import JobKind, JobRunner
from outcrop.api.prompt_router.routes import PromptRouters
from outcrop.api.provisioned.routes import ProvisionedModels
from outcrop.telemetry.metrics import Metrics


class Bedrock:
    """The operations that are offered, and the jobs behind them; those that are not are in `not_offered`."""

    def __init__(
        self, plane: ControlPlane, background: Inference, metrics: Metrics, options: ControlOptions
    ) -> None:
        """background: answers the records of batch jobs."""
        database, storage = plane.database, options.storage
        self._plane = plane
        followed = self._followed = Followed(database)
        profiles = InferenceProfiles(plane, followed.look)
        routers = PromptRouters(plane, followed.look)
        provisioned = ProvisionedModels(plane, followed.look)
        delivery = Delivery(storage, metrics, plane.catalog.region, options.log_seconds)
        self.log = InvocationLog(delivery, plane.limits.max_body_bytes)
        invocation_logging = InvocationLogging(plane, self.log, followed.look)
        models = ImportedModels(plane.catalog, metrics, options.load_model, storage, options.models)
        for part in (profiles, models, routers, provisioned, invocation_logging):
            followed.add(part.follower())
        self._batch = JobRunner(
            database,
            options.jobs,
            JobKind(
                batch.KIND,
                batch.UNFINISHED,
                lambda job_id: BatchJob(job_id, database, storage, background, metrics, options.jobs.rows),
                followed.look,
                batch.is_ending,
            ),
        )
        importer = JobRunner(
            database,
            options.jobs,
            JobKind(
                imports.JOB,
                (imports.IN_PROGRESS,),
                lambda job_id: ImportJob(job_id, database, storage, options.models, followed.look),
                followed.look,
            ),
        )
        self._imports = ModelImports(plane, storage, importer, models, followed.look)
        self._async = JobRunner(
            database,
            options.jobs,
            JobKind(
                async_invoke.KIND,
                (async_invoke.IN_PROGRESS,),
                lambda job_id: AsyncInvocation(job_id, database, storage, background),
                followed.look,
            ),
        )
        self._parts = (
            FoundationModels(plane.catalog),
            profiles,
            routers,
            provisioned,
            invocation_logging,
            Tagging(plane),
            InvocationJobs(plane, storage, self._batch),
            self._imports,
            AsyncInvokes(plane, storage, self._async),
            Guardrails(plane),
        )

    def routes(self) -> list[Route]:
        return [route for part in self._parts for route in part.routes()]

    async def start(self) -> None:
        """Take up what the state has. Raises DatabaseError."""
        await self._followed.start()
        self._imports.start()
        self._batch.start()
        self._async.start()

    async def close(self) -> None:
        """Interrupt what is worked on, which goes on with the next start, and deliver what is logged."""
        await self._followed.close()
        await self._batch.close()
        await self._async.close()
        await self._imports.close()
        await self.log.delivery.close()
