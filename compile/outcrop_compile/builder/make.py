"""From a plan and a checkpoint to an artifact.

All of it can be run again: what a build that was cut off has made (shards, and NEFFs by their keys) is kept
and used, and the manifest, without which the folder is no artifact, is written last.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from outcrop_compile.artifact import Artifact, CompiledBucket, Manifest, StoredFile, TensorSpec, open_artifact
from outcrop_compile.artifact import manifest as manifests
from outcrop_compile.artifact.files import place, stored
from outcrop_compile.artifact.kernels import kernel_digests, kernel_names
from outcrop_compile.artifact.manifest import bucket_key, digest_of
from outcrop_compile.artifact.open import read_manifest
from outcrop_compile.builder.compiler import ARCH, Compiler, Traced
from outcrop_compile.builder.compiling import Job, Pool
from outcrop_compile.builder.flags import flags_of
from outcrop_compile.builder.memory import available_memory
from outcrop_compile.builder.model import example_inputs, shard_tensors, states_of, traced_model
from outcrop_compile.builder.source import checkpoint_digest, copy_small_files
from outcrop_compile.checkpoint import Checkpoint
from outcrop_compile.graph import Graph, graphs_of
from outcrop_compile.hlo.module import HloModule
from outcrop_compile.hlo_lint.linter import lint_module
from outcrop_compile.llama import KVSizes, TensorParallel
from outcrop_compile.plan import Plan
from outcrop_compile.plan.host import worker_count
from outcrop_compile.plan.request import plain_type
from outcrop_compile.processors import usable_processors
from outcrop_compile.sdk import RELEASES, release_of
from outcrop_compile.shards import WEIGHTS, shard_path, write_shard
from outcrop_kernels.nki.catalogue import weight_layout
from outcrop_kernels.reference import TOPK_CAP
from outcrop_kernels.registry import operations

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of it that is done."""

_WORK = ".build"


class BuildRefused(ValueError):
    """A build that cannot end well is not begun; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Options:
    """model: the checkpoint as it was named, for commands that build it again. version: Outcrop's own.
    workers: compilations at the same time; None for as many as fit. unpinned: take any SDK. unlinted: compile
    graphs all the same that the linter finds wrong. flags: for the compiler, in addition. kernels: NKI
    kernels that the graphs are to call, by name. indirect_dma: whether those may gather by indices in SBUF.
    """

    model: str
    version: str
    workers: int | None = None
    unpinned: bool = False
    unlinted: bool = False
    flags: tuple[str, ...] = ()
    kernels: frozenset[str] = frozenset()
    indirect_dma: bool = False


def build(
    plan: Plan, checkpoint: Checkpoint, out: Path, compiler: Compiler, options: Options, progress: Progress
) -> Artifact:
    """Build the artifact of a plan in the folder `out`; where it is there already, that is all.

    Raises BuildRefused, CompilationFailed, CompilerUnavailable, CheckpointError and OSError, each of which
    says what to do.
    """
    return _Build(plan, checkpoint, out, compiler, options, progress).run()


class _Build:
    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        out: Path,
        compiler: Compiler,
        options: Options,
        progress: Progress,
    ) -> None:
        self.plan, self.checkpoint, self.out = plan, checkpoint, out
        self.compiler, self.options, self.progress = compiler, options, progress
        self.config = checkpoint.config
        self.packages = dict(compiler.packages())
        self.kernels = kernel_digests(kernel_names(options.kernels, gather=options.indirect_dma))
        request = plan.request
        self.target = manifests.Target(instance=request.instance.name, arch=ARCH, tp=plan.tp)
        self.shapes = manifests.Shapes(
            dtype=plain_type(request.dtype),
            quantisation="int8" if request.dtype == "int8" else None,
            block_size=request.block,
            num_blocks=plan.num_blocks,
            max_model_len=request.length,
            max_rows=request.batch,
            guesses=request.guesses,
            topk_cap=TOPK_CAP,
            inputs_first=weight_layout(options.kernels) == "inputs-first",
        )
        self.graphs = tuple(graphs_of(each.bucket for each in plan.buckets))
        self.work = out / _WORK

    def run(self) -> Artifact:
        sdk = manifests.Sdk(release=self._release(), packages=self.packages)
        workers = self._workers()
        digest = checkpoint_digest(self.checkpoint, lambda done: self.progress("digest", done))
        self.model = manifests.Model(name=self.options.model, sha256=digest, config=self.config)
        if (self.out / manifests.NAME).exists():
            return self._existing(sdk)
        self._begin(sdk)
        shard = self._write_shards()
        with self.compiler.parallel(self.plan.tp) as parallel:
            jobs, states = self._trace(shard, parallel)
            pool = Pool(self.compiler, self.work, workers, self._command())
            self._compile(pool, jobs)
        return self._finish(sdk, jobs, states, pool)

    def _release(self) -> str:
        release = release_of(self.packages)
        if release is None and not self.options.unpinned:
            found = ", ".join(f"{name} {version}" for name, version in sorted(self.packages.items()))
            pins = "; or ".join(each.install_command() for each in RELEASES.values())
            raise BuildRefused(
                f"these packages are of no Neuron SDK that Outcrop is made for ({found}). Install one "
                f"({pins}), or build with them all the same: --unpinned"
            )
        return release or "unpinned"

    def _workers(self) -> int:
        if self.options.workers is not None:
            return self.options.workers
        available, one = available_memory(), self.plan.build.compiler
        workers = worker_count(len(self.graphs), one, available, usable_processors())
        if workers < 1:
            raise BuildRefused(
                f"one compilation takes about {one / 2**30:.0f} GiB, and this machine has "
                f"{available / 2**30:.0f} GiB free. Build on a larger one (no device is needed), or try "
                "it all the same: --workers 1"
            )
        return workers

    def _existing(self, sdk: manifests.Sdk) -> Artifact:
        """The artifact that is in the folder, if it is this one."""
        found = read_manifest(self.out / manifests.NAME)
        name = {"model": replace(self.model, name=found.model.name)}
        wanted = {**name, "target": self.target, "shapes": self.shapes, "sdk": sdk, "kernels": self.kernels}
        wanted |= {"outcrop": self.options.version}
        flags = {graph.tag: flags_of(graph.bucket, self.options.flags) for graph in self.graphs}
        differing = [field for field, value in wanted.items() if getattr(found, field) != value]
        if flags != {bucket.tag: bucket.flags for bucket in found.buckets}:
            differing.append("buckets")
        if differing:
            raise BuildRefused(
                f"{self.out} holds artifact {found.key[:12]}, which has another {differing[0]}. Choose "
                "another folder with --out, or delete it"
            )
        return open_artifact(self.out)

    def _begin(self, sdk: manifests.Sdk) -> None:
        """What a build of something else left behind is of no use: NEFFs have keys, shards have none."""
        identity = digest_of([self.model.sha256, self.config, self.target, self.shapes, sdk]).encode()
        mark = self.work / "identity"
        if not mark.exists() or mark.read_bytes() != identity:
            shutil.rmtree(self.out / WEIGHTS, ignore_errors=True)
        place(mark, identity)

    def _write_shards(self) -> dict[str, TensorSpec]:
        """Every rank's weights, and what is in each."""
        world, request = self.plan.tp, self.plan.request
        for rank in range(world):

            def report(done: int, total: int, rank: int = rank) -> None:
                self.progress("weights", (rank + done / total) / world)

            write_shard(
                self.checkpoint,
                self.out / shard_path(rank),
                rank=rank,
                world=world,
                dtype=request.dtype,
                plain=self.shapes.dtype,
                max_positions=self.shapes.max_model_len,
                layout=self.shapes.weight_layout,
                progress=report,
            )
        self.progress("weights", 1.0)
        return shard_tensors(self.out / shard_path(0))

    def _trace(
        self, shard: dict[str, TensorSpec], parallel: TensorParallel
    ) -> tuple[list[Job], tuple[TensorSpec, ...]]:
        """All graphs, and the states they share. The model ends with this: compilations need its memory."""
        jobs = []
        model = traced_model(
            self.config,
            shard,
            KVSizes(self.shapes.num_blocks, self.shapes.block_size, self.shapes.max_rows),
            operations("neuron", self.options.kernels, gather=self.options.indirect_dma),
            max_positions=self.shapes.max_model_len,
            parallel=parallel,
        )
        for index, graph in enumerate(self.graphs):
            inputs = example_inputs(graph, self.config.vocab_size)
            traced = self.compiler.trace(model, inputs, graph.tag)
            if missing := sorted(traced.weights - set(shard)):
                raise BuildRefused(
                    f"the graph {graph.tag} reads weights that no shard has: {', '.join(missing[:5])}. This "
                    "is a defect of Outcrop with this SDK: please report it"
                )
            self._lint(traced)
            jobs.append(self._job(graph, traced))
            self.progress("trace", (index + 1) / len(self.graphs))
        return jobs, states_of(model)

    def _lint(self, traced: Traced) -> None:
        """Minutes of compilation are not begun for what the compiler is known to refuse."""
        if self.options.unlinted:
            return
        errors = [one for one in lint_module(HloModule(traced.hlo)) if one.rule.severity == "error"]
        if errors:
            first = errors[0]
            where = f" at {first.instruction}" if first.instruction else ""
            raise BuildRefused(
                f"the graph {traced.tag} has {first.rule.what}{where}: {first.detail} ({first.rule.id}; "
                f"{len(errors)} such findings in all). That is a defect of Outcrop with this SDK: please "
                "report it; or compile it all the same: --unlinted"
            )

    def _job(self, graph: Graph, traced: Traced) -> Job:
        flags = flags_of(graph.bucket, self.options.flags)
        key = bucket_key(
            hlo=hashlib.sha256(traced.hlo).hexdigest(),
            flags=flags,
            packages=self.packages,
            target=self.target,
            bucket=graph.bucket,
            shapes=self.shapes,
            kernels=self.kernels,
        )
        return Job(graph, traced, flags, key)

    def _compile(self, pool: Pool, jobs: Sequence[Job]) -> None:
        done = 0

        def report(job: Job) -> None:
            nonlocal done
            done += 1
            self.progress("compile", done / len(jobs))

        self.progress("compile", 0.0)
        pool.compile(jobs, report)

    def _finish(
        self, sdk: manifests.Sdk, jobs: Sequence[Job], states: tuple[TensorSpec, ...], pool: Pool
    ) -> Artifact:
        """Put the graphs' files into place, and write the manifest of everything."""
        small = copy_small_files(self.checkpoint, self.out)
        for job in jobs:
            place(self.out / _file(job, "hlo"), job.traced.hlo)
            place(self.out / _file(job, "metaneff"), job.traced.metaneff)
            shutil.copyfile(pool.neff(job.key), self.out / _file(job, "neff"))
        weights = tuple(shard_path(rank) for rank in range(self.plan.tp))
        graphs = [_file(job, kind) for job in jobs for kind in ("hlo", "neff", "metaneff")]
        files = self._stored([*graphs, *weights, *small])
        buckets = tuple(
            CompiledBucket(
                tag=job.graph.tag,
                bucket=job.graph.bucket,
                key=job.key,
                flags=job.flags,
                inputs=job.graph.inputs(self.config.vocab_size),
                outputs=job.graph.outputs(),
                aliases=tuple(state.name for state in states),
                unread=job.traced.unread,
                hlo=files[_file(job, "hlo")],
                neff=files[_file(job, "neff")],
                metaneff=files[_file(job, "metaneff")],
            )
            for job in jobs
        )
        manifest = Manifest(
            format=manifests.FORMAT,
            key="",
            outcrop=self.options.version,
            model=self.model,
            target=self.target,
            sdk=sdk,
            shapes=self.shapes,
            kernels=self.kernels,
            states=states,
            buckets=buckets,
            weights=tuple(files[path] for path in weights),
            checkpoint=tuple(files[path] for path in small),
        )
        manifest = replace(manifest, key=manifests.artifact_key(manifest))
        place(self.out / manifests.NAME, manifests.encode(manifest))
        shutil.rmtree(self.work)
        return open_artifact(self.out)

    def _stored(self, paths: Sequence[str]) -> dict[str, StoredFile]:
        total, done = max(1, sum((self.out / path).stat().st_size for path in paths)), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress("hash", done / total)

        return {path: stored(self.out, path, advance) for path in paths}

    def _command(self) -> str:
        words = manifests.build_words(
            self.options.model, self.target, self.shapes, self.kernels, {"out": self.out}
        )
        words += ["--unpinned"] if self.options.unpinned else []
        words += ["--unlinted"] if self.options.unlinted else []
        words += ["--compiler-flags", " ".join(self.options.flags)] if self.options.flags else []
        return shlex.join(words)


def _file(job: Job, kind: str) -> str:
    return f"buckets/{job.graph.tag}.{kind}"
