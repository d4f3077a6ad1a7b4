"""Group-wise reinforcement learning of a policy on a frozen model, on transformers' Trainer.

A step: examples -> ``environment.encode`` -> the policy's logits -> G samples of each video ->
``environment.answer`` -> rewards -> advantages within each group -> the policy gradient. The policy is the model;
the environment stays outside of it, without gradients and out of every checkpoint.

What is drawn depends on the seed, the step and a video's place in the batch over all processes, and on nothing else
(:mod:`score_video.rl.curriculum`). So a run that was killed and resumed ends in the same weights, bit for bit on the
CPU (of the same machine, with as many threads), and several processes do what one would with their batches together,
up to the rounding of sums.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers.trainer_callback import ProgressCallback

from score_video import diverse
from score_video.compressor import AdaptiveRetention, AnySelection, Compressor
from score_video.errors import ScoreError
from score_video.policy import SurprisePolicy
from score_video.rl import checkpoint
from score_video.rl.advantages import ADVANTAGES
from score_video.rl.broken import BrokenExamples, NumberedExamples, encode_readable
from score_video.rl.config import RENAMED, ScoreConfig
from score_video.rl.curriculum import Drawn, Examples, Schedule, ScheduledExamples, collate, data_of_stages
from score_video.rl.environment import EncodedBatch, Environment, gate_of
from score_video.rl.objective import policy_gradient_loss
from score_video.rl.progress import RewardBar
from score_video.rl.registry import find
from score_video.rl.resumable import ResumableTrainer
from score_video.rl.rewards import COMBINATIONS, COMPRESSIONS, REWARDS, TaskReward, check_finite
from score_video.rl.rollouts import Prepared, collect, deployed, drawn_from, for_policy, rewards_of
from score_video.rl.run_settings import decisive
from score_video.rl.sampling import SAMPLINGS, Diverse

_SKIPPED = "SkippedExamples"
"""Under which name trainer_state.json has the examples that were skipped."""


class ScoreTrainer(ResumableTrainer):
    """Trains a policy in an environment.

    Args:
        model: the policy.
        environment: the frozen model, on any device; see :class:`score_video.rl.environment.Environment`.
        args: the configuration.
        train_dataset: examples, map-style; or data sets by name, for the stages of a curriculum.
        eval_dataset: examples that :meth:`evaluate` answers; or several data sets by name.
        reward: a task reward, by name or itself; None: ``args.reward``.
        options: Trainer's own: callbacks, optimizers, ...

    Raises:
        ValueError: stages that do not fit the steps or the data; several devices in one process.
    """

    args: ScoreConfig
    renamed_settings = RENAMED

    def __init__(
        self,
        model: SurprisePolicy,
        environment: Environment,
        args: ScoreConfig,
        train_dataset: Examples | Mapping[str, Examples] | None = None,
        eval_dataset: Examples | Mapping[str, Examples] | None = None,
        reward: TaskReward | str | None = None,
        **options: Any,
    ) -> None:
        self.environment = environment
        if gate_of(environment) is not None:
            model.config.behind_gate = True
        self.sampling = find(SAMPLINGS, args.sampling)
        if isinstance(self.sampling, Diverse) and model.config.distance_weight != diverse.WEIGHT:
            raise ScoreError(
                f"distance_weight of the policy must be {diverse.WEIGHT}, by which sampling 'diverse' draws, "
                f"got {model.config.distance_weight}"
            )
        self.advantage = find(ADVANTAGES, args.advantage)
        self.compression_reward = (
            None if args.compression_reward is None else find(COMPRESSIONS, args.compression_reward)
        )
        self.combination = find(COMBINATIONS, args.combination)
        self.reward_name = args.reward if reward is None else reward if isinstance(reward, str) else _name_of(reward)
        self.reward = find(REWARDS, args.reward if reward is None else reward)
        self.schedule = Schedule(args.parsed_stages(), args.max_steps)
        self._rollouts: list[Prepared] | None = None
        self._saved_rollouts: dict[str, Tensor] = {}
        self._metrics: defaultdict[str, list[float]] = defaultdict(list)
        try:
            super().__init__(
                model=model,
                args=args,
                data_collator=collate,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                **options,
            )
        except ValueError as error:  # Trainer's, on settings that do not go together
            raise ScoreError(f"training: {error}") from error
        self.compressor()  # what does not go together is better said now than at the end
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != args.world_size:
            raise ScoreError(f"the {started} processes that were started (WORLD_SIZE) train {args.world_size} to a run")
        if args.n_gpu > 1:
            raise ScoreError(f"several devices must have a process each (torchrun), got {args.n_gpu} devices in one")
        if train_dataset is not None:
            scheduled = ScheduledExamples(
                data_of_stages(self.schedule.stages, train_dataset),
                self.schedule,
                self.get_total_train_batch_size(args),
                args.num_iterations,
                args.seed,
            )
            self.train_dataset, self._broken = scheduled, BrokenExamples(scheduled, args.skip_broken)
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(RewardBar)

    # ---- A step

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """The data set is in order already (:class:`ScheduledExamples`), whatever Trainer's default is."""
        return SequentialSampler(train_dataset or cast(ScheduledExamples, self.train_dataset))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Prepared]], None]:
        """The batches of the next optimiser step, as rollouts: new ones, or those of the step before."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        drawn: list[Drawn] = [batch["drawn"] for batch in batches]
        if self.state.global_step % self.args.num_iterations == 0:
            self._rollouts = self._roll_out(drawn)
        elif self._rollouts is None:
            self._rollouts = self._restored(drawn)
        return [{"rollout": rollout} for rollout in self._rollouts], None

    def _roll_out(self, drawn: Sequence[Drawn]) -> list[Prepared]:
        step = self.state.global_step
        stage = self.schedule.stages[self.schedule.number_at(step)]
        self.model.eval()
        collected = [
            collect(
                self.environment,
                encoded,
                self.model,
                self.model.device,
                self.sampling,
                self.reward,
                retention=stage.retention or self.args.retention,
                num_samples=self.args.num_generations,
                seeds=batch.seeds,
                again=self.args.num_iterations > 1,
            )
            for batch, encoded in ((batch, self._encode(batch)) for batch in drawn)
        ]
        self._wait()
        if self.args.skip_broken:  # every process knows what all have found
            from accelerate.utils import gather_object  # type: ignore[import-untyped]

            self._broken.share(gather_object(self._broken.found), self.is_world_process_zero())
        prepared = [batch for batch, _ in collected]
        advantage = self._advantages(self._gather([results for _, results in collected]))
        own = sum(batch.videos.num_videos for batch in prepared)
        first = own * self.args.process_index
        for number, batch in enumerate(prepared):
            last = first + batch.videos.num_videos
            prepared[number] = replace(batch, advantage={name: a[:, first:last] for name, a in advantage.items()})
            first = last
        return prepared

    def _encode(self, drawn: Drawn) -> EncodedBatch:
        try:
            return self._broken.encode(self.environment, drawn)
        except ValueError as error:
            raise ScoreError(f"step {self.state.global_step + 1}: {error}") from error

    def _wait(self) -> None:
        """Before the processes meet: those that are done may still be needed, where they share the frozen model."""
        if (wait := getattr(self.environment, "wait", None)) is not None:
            wait()

    def _gather(self, results: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """[G, B] of each batch of this process -> [G, all videos of the step], process by process."""
        names = list(results[0])
        own = torch.cat([torch.stack([batch[name] for name in names], 2) for batch in results], 1)  # [G, B, names]
        everything = self.accelerator.gather(own.transpose(0, 1).contiguous()).transpose(0, 1)
        return {name: everything[..., number] for number, name in enumerate(names)}

    def _advantages(self, results: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the whole batch: every process computes all of them, so that a strategy may look at the whole batch."""
        args = self.args
        task, compression = results["task"], torch.zeros_like(results["task"])
        try:
            check_finite(self.reward_name, task)
            if self.compression_reward is not None:
                compression = self.compression_reward(results["kept_ratio"], args.target_retention or args.retention)
                check_finite(str(args.compression_reward), compression)
        except ValueError as error:
            raise ScoreError(f"step {self.state.global_step + 1}: {error}") from None
        rewards = rewards_of(results, compression, self.combination, self.sampling.factors)
        advantage = self.advantage(rewards, args.compression_weight, args.scale_rewards, self.sampling.factors)
        total = task if self.compression_reward is None else rewards.total(args.compression_weight)
        self._record(
            reward=total.mean(),
            reward_std=total.std(0).mean(),
            frac_reward_zero_std=(total == total[0]).all(0).float().mean(),
            advantage=torch.stack([a.abs().mean() for a in advantage.values()]).mean(),
            accuracy=results["correct"].mean(),
            kept_ratio=results["kept_ratio"].mean(),
            kept=results["kept"].mean(),
        )
        if self.compression_reward is not None:
            self._record(task_reward=task.mean(), compression_reward=compression.mean())
        return advantage

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The policy gradient's loss on one batch of this process; the mean over its videos."""
        batch: Prepared = inputs["rollout"]
        logits, drawn = drawn_from(model(batch.videos, batch.question, batch.seen), batch.videos, batch.seen)
        log_prob = self.sampling.log_prob(logits, drawn, batch.rollout)
        loss, metrics = policy_gradient_loss(
            log_prob,
            batch.old_log_prob,
            batch.advantage,
            self.args.epsilon,
            batch.rollout.decisions,
            self.args.loss_type,
        )
        self._record(**metrics)
        return loss

    # ---- Metrics

    def _record(self, **metrics: Tensor) -> None:
        for name, value in metrics.items():
            self._metrics[name].append(float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of this training's metrics since the last line, over all processes."""
        if "loss" in logs and self._metrics:
            names = list(self._metrics)  # the same in every process
            means = torch.tensor([sum(m) / len(m) for m in self._metrics.values()], device=self.args.device)
            logs |= dict(zip(names, self.accelerator.gather(means[None]).mean(0).tolist(), strict=True))
            if self.args.stages is not None:
                logs["stage"] = 1 + self.schedule.number_at(self.state.global_step - 1)
            if self.args.skip_broken:
                logs["skipped"] = len(self._broken.known)
            self._metrics.clear()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Has the policy choose as it will once it is trained (:meth:`compressor`), and the environment answer.

        Nothing is drawn.

        Returns:
            ``eval_reward`` (of the task), ``eval_accuracy``, ``eval_kept_ratio``: means over the videos; with
            ``args.skip_broken`` over those that can be read, and ``eval_skipped``, how many cannot. For several data
            sets ``eval_NAME_reward`` and so on.
        """
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if data is None:
            raise ScoreError("eval_dataset must be given here or to the trainer, got None")
        if isinstance(data, Mapping):
            metrics: dict[str, float] = {}
            for name, examples in data.items():
                metrics |= self.evaluate(examples, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        self.model.eval()
        compressor = self.compressor()
        sums = torch.zeros(5, dtype=torch.float64, device=self.args.device)
        loader = self.callback_handler.eval_dataloader = self._eval_loader(cast(Examples, data))
        for batch in loader:
            encoded, skipped = encode_readable(self.environment, batch["drawn"], self.args.skip_broken)
            sums[4] += skipped
            if encoded is None:
                continue
            outcome, ratio = deployed(self.environment, encoded, compressor, self.model.device, self.reward)
            values = (self.reward(outcome), outcome.correct, ratio)
            sums[:4] += torch.stack([*(value.double().sum() for value in values), sums.new_tensor(len(values[0][0]))])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        self._wait()
        reward, accuracy, kept, count, skipped = self.accelerator.gather(sums[None]).sum(0).tolist()
        if count == 0:
            unread = f" that can be read (of {int(skipped)})" if skipped else ""
            raise ScoreError(f"eval_dataset must have examples{unread}, got none")
        named = {"reward": reward, "accuracy": accuracy, "kept_ratio": kept}
        metrics = {f"{metric_key_prefix}_{name}": total / count for name, total in named.items()}
        if self.args.skip_broken:
            metrics[f"{metric_key_prefix}_skipped"] = skipped
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _eval_loader(self, data: Examples) -> DataLoader[Any]:
        """Every process takes its share, without padding."""
        own = range(self.args.process_index, len(data), self.args.world_size)
        return DataLoader(
            NumberedExamples(data, own),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
        )

    @property
    def _count_is_given(self) -> bool:
        """Whether how many are kept is not the policy's to choose."""
        return self.sampling.factors == ("subset",)

    def compressor(self) -> Compressor:
        """The policy as :meth:`evaluate` has it choose: what ``score train`` saves.

        By ``args.selection``, ``args.eval_retention`` of the tokens; if that is not given ``args.retention``, or where
        the sampling chooses the count, the policy's expected count, rounded and at least 1. Behind the environment's
        gate, if it has one.
        """
        retention: float | AdaptiveRetention | None = self.args.eval_retention
        if retention is None:
            retention = self.args.retention if self._count_is_given else AdaptiveRetention(floor=1e-9, cap=1.0)
        gate = gate_of(self.environment)
        before, halo = (None, 0) if gate is None else (cast(Compressor, gate.selector), gate.halo)
        policy = self.accelerator.unwrap_model(self.model)
        return Compressor(policy, retention, cast(AnySelection, self.args.selection), before, halo)

    # ---- Checkpoints

    def settings_of_run(self) -> dict[str, Any]:
        """All that decides what a step does: see :mod:`score_video.rl.run_settings`."""
        settings = decisive(self.args) | {"reward": self.reward_name}
        settings["videos_of_a_step"] = self.get_total_train_batch_size(self.args)
        if self.train_dataset is not None:  # their order depends on their number
            settings["examples_of_stages"] = [len(data) for data in cast(ScheduledExamples, self.train_dataset).data]
        return settings

    def save_more(self, folder: Path) -> None:
        """The rollouts, if they will be used again."""
        if self.state.global_step % self.args.num_iterations and self._rollouts is not None:
            batches = [batch.tensors(str(number)) for number, batch in enumerate(self._rollouts)]
            tensors = {name: tensor for batch in batches for name, tensor in batch.items()}
            checkpoint.save_tensors(folder / self._rollout_file(), tensors)

    def load_more(self, folder: Path) -> None:
        """See :meth:`save_more`. Raises ValueError where other processes shared the rollouts."""
        states = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")).get("stateful_callbacks", {})
        if self.args.skip_broken and _SKIPPED in states:
            self._broken.restore(states[_SKIPPED])
        self._rollouts, self._saved_rollouts = None, {}
        if list(folder.glob("rollout-*")):
            file = folder / self._rollout_file()
            if not file.is_file():
                raise ScoreError(
                    f"{folder}: is between two steps of a rollout and must be resumed with as many processes,"
                    f" got {self.args.world_size}"
                )
            self._saved_rollouts = checkpoint.load_tensors(file, str(self.model.device))

    def _states_of_callbacks(self) -> Any:
        """With the examples that were skipped."""
        states = super()._states_of_callbacks()
        return {**states, _SKIPPED: self._broken.state()} if self.args.skip_broken else states

    def _rollout_file(self) -> str:
        return f"rollout-{self.args.process_index + 1}-of-{self.args.world_size}.safetensors"

    def _restored(self, drawn: Sequence[Drawn]) -> list[Prepared]:
        """The rollouts that a checkpoint held; their videos are encoded again."""
        encoded = [self._encode(batch) for batch in drawn]
        self._wait()
        return [
            Prepared.restore(*for_policy(batch, self.model.device), self._saved_rollouts, str(number))
            for number, batch in enumerate(encoded)
        ]


def _name_of(reward: object) -> str:
    return getattr(reward, "__name__", type(reward).__name__)
