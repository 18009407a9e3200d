"""A detector that learns from a teacher: what its losses are, and what does not change by it."""
from __future__ import annotations

import pickle
from copy import deepcopy
from typing import Callable, Iterator

import pytest
import torch
import torch.distributed as torch_dist
from mmdet.models import ATSS, FCOS, RetinaNet
from mmengine.model import ExponentialMovingAverage, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmaqd.models import DistillationLoss, FeatureDistillationLoss, OutputDistillationLoss, distill
from mmaqd.models.detectors.distillation import Distiller
from mmaqd.quantizers import calibrate
from tests.helpers.detector import (DETECTORS, build, build_calibrated, loss, make_batch, model_cfg,
                                    raw_outputs)

UPSTREAM = dict(RetinaNet=RetinaNet, FCOS=FCOS, ATSS=ATSS)


class BuildTeacher:
    """Builds a float detector and counts how often; can be pickled."""

    def __init__(self, detector: str, seed: int = 3) -> None:
        self.detector, self.seed, self.built = detector, seed, []

    def __call__(self) -> nn.Module:
        self.built.append(build(model_cfg(self.detector), self.seed))
        return self.built[-1]


def make_losses() -> list[DistillationLoss]:
    return [FeatureDistillationLoss('neck'), OutputDistillationLoss(min_score=1e-3)]


def make_student(detector: str = 'RetinaNet', bits: int | None = 4) -> nn.Module:
    model = build_calibrated(detector, bits) if bits else build(model_cfg(detector))
    return distill(model.train(), BuildTeacher(detector), make_losses())


def train_losses(model: nn.Module, batch: dict | None = None) -> dict[str, Tensor]:
    """The losses by name, those that come level by level summed."""
    data = model.data_preprocessor(batch or make_batch(), training=True)
    losses = model(**data, mode='loss')
    return {
        name: value if isinstance(value, Tensor) else sum(value)
        for name, value in losses.items()
    }


def distill_names(losses: dict) -> set[str]:
    return {name for name in losses if 'distill' in name}


@pytest.fixture(params=DETECTORS)
def detector(request) -> str:
    return request.param


def test_it_stays_the_detector_that_it_was(detector):
    plain, student = build_calibrated(detector), make_student(detector)
    train_losses(student)  # the teacher is built
    assert isinstance(student, UPSTREAM[detector])
    assert [name
            for name, _ in student.named_modules()] == [name for name, _ in plain.named_modules()]
    assert [name for name, _ in student.named_parameters()
            ] == [name for name, _ in plain.named_parameters()]
    assert student.state_dict().keys() == plain.state_dict().keys()


def test_the_detectors_own_losses_do_not_change(detector):
    plain = train_losses(build_calibrated(detector).train())
    losses = train_losses(make_student(detector))
    added = {'loss_distill_neck', 'loss_distill_cls', 'loss_distill_reg'}
    added |= set() if detector == 'RetinaNet' else {'loss_distill_centerness'}
    assert losses.keys() - plain.keys() == added
    torch.testing.assert_close({name: losses[name] for name in plain}, plain, rtol=0, atol=0)
    assert all(losses[name] > 0 for name in added)


def test_the_losses_compare_the_two_forward_passes(detector):
    student = make_student(detector)
    losses = train_losses(student)

    teacher = build(model_cfg(detector), 3).eval()
    teacher.bbox_head.training = True  # the same units of FCOS's boxes
    images = student.data_preprocessor(make_batch(), training=True)['inputs']
    passes = []
    for model in (build_calibrated(detector).train(), teacher):
        features = model.extract_feat(images)
        passes.append((features, model.bbox_head(features)))
    (s_features, s_outputs), (t_features, t_outputs) = passes
    feature, output = make_losses()
    expected = {**feature([s_features], [t_features]), **output([s_outputs], [t_outputs])}
    assert expected.keys() == distill_names(losses)
    torch.testing.assert_close({name: losses[name] for name in expected}, expected)


@pytest.mark.slow
def test_the_branches_of_a_head_are_compared_on_every_level(detector):
    branch = 'bbox_head.reg_convs.0'
    student = distill(
        build_calibrated(detector).train(), BuildTeacher(detector),
        [FeatureDistillationLoss(branch)])
    losses = train_losses(student)

    images = student.data_preprocessor(make_batch(), training=True)['inputs']
    features: dict[nn.Module, list[Tensor]] = {}
    models = build_calibrated(detector).train(), build(model_cfg(detector), 3).eval()
    for model in models:
        model.get_submodule(branch).register_forward_hook(
            lambda module, _, output, model=model: features.setdefault(model, []).append(output))
        model.bbox_head(model.extract_feat(images))
    assert len(features[models[0]]) == len(student.bbox_head.prior_generator.strides)
    expected = FeatureDistillationLoss(branch)(*features.values())
    assert expected.keys() == distill_names(losses) == {'loss_distill_bbox_head_reg_convs_0'}
    torch.testing.assert_close({name: losses[name] for name in expected}, expected)


def test_a_student_equal_to_its_teacher_has_no_loss(detector):
    student = distill(build(model_cfg(detector), 3), BuildTeacher(detector), make_losses()).train()
    for module in student.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    losses = train_losses(student)
    assert all(abs(losses[name].item()) < 1e-6 for name in distill_names(losses))


def test_each_module_of_the_student_runs_once_a_step():
    student = make_student()
    calls = []
    for name in ('backbone', 'neck', 'bbox_head'):
        student.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    train_losses(student)
    assert calls == ['backbone', 'neck', 'bbox_head']


def test_gradients_reach_all_of_the_student_and_none_of_the_teacher(detector):
    student = make_student(detector)
    losses = train_losses(student)
    sum(losses[name] for name in distill_names(losses)).backward()
    grads = {name: parameter.grad for name, parameter in student.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()] == []
    teacher, = student.distiller.build_teacher.built
    assert not any(each.requires_grad or each.grad is not None for each in teacher.parameters())


def test_the_teacher_does_not_change(detector):
    student = make_student(detector)
    for _ in range(2):
        loss(student, make_batch()).backward()
    teacher, = student.distiller.build_teacher.built
    expected = build(model_cfg(detector), 3).state_dict()
    torch.testing.assert_close(dict(teacher.state_dict()), dict(expected), rtol=0, atol=0)
    assert not any(module.training
                   for module in teacher.modules() if module is not teacher.bbox_head)


def test_inference_and_calibration_know_no_teacher(detector):

    def fail() -> nn.Module:
        raise AssertionError('the teacher was built')

    student = distill(build(model_cfg(detector, 4)), fail, make_losses())
    calibrate(student, [make_batch()])
    student.eval()
    plain = build_calibrated(detector).eval()
    assert all(
        map(torch.equal, raw_outputs(student, make_batch()), raw_outputs(plain, make_batch())))
    assert len(student.test_step(make_batch())) == 2
    assert not distill_names(train_losses(student)), 'a loss in evaluation, as for validation'


@pytest.mark.parametrize('copy', [
    pytest.param(deepcopy, id='deepcopy'),
    pytest.param(lambda model: pickle.loads(pickle.dumps(model)), id='pickle'),
])
@pytest.mark.parametrize('used', [False, True], ids=['fresh', 'with-teacher'])
def test_copies_have_a_teacher_of_their_own(copy, used):
    student = make_student()
    if used:
        train_losses(student)
    twin = copy(student)
    assert type(twin) is type(student)
    assert twin.distiller is not student.distiller and twin.distiller._teacher is None
    torch.testing.assert_close(train_losses(twin), train_losses(deepcopy(student)), rtol=0, atol=0)
    with torch.no_grad():
        twin.neck.lateral_convs[0].conv.weight.zero_()
    assert student.neck.lateral_convs[0].conv.weight.any()


def test_an_average_of_the_weights_has_no_teacher():
    student = make_student()
    train_losses(student)
    average = ExponentialMovingAverage(student, momentum=0.5)
    average.update_parameters(student)
    assert average.module.distiller._teacher is None
    assert not [key for key in average.state_dict() if 'teacher' in key or 'distill' in key]


def test_the_teacher_follows_the_images():
    """A device without numbers serves as the other one."""
    teacher = SmallDetector()
    distiller = Distiller(lambda: teacher, [FeatureDistillationLoss('neck')])
    student = SmallDetector()
    student.neck.to('meta')
    images = torch.zeros(1, 3, 4, 4, device='meta')
    losses = distiller.compare(student, dict(neck=[student.extract_feat(images)]), images)
    assert losses['loss_distill_neck'].device.type == 'meta'
    assert {each.device.type for each in teacher.parameters()} == {'meta'}


class SmallDetector(nn.Module):
    """The least that a distiller needs."""

    def __init__(self, mean: float = 0.0) -> None:
        super().__init__()
        self.neck = nn.Conv2d(3, 2, 1)
        self.bbox_head = nn.Conv2d(2, 2, 1)
        self.spare = nn.Conv2d(2, 2, 1)
        self.data_preprocessor = nn.Module()
        self.data_preprocessor.register_buffer('mean', torch.tensor([mean]))

    def extract_feat(self, images: Tensor) -> Tensor:
        return self.neck(images)


def test_bfloat16_autocast_trains(detector):
    # The size is explained in tests/conversion/test_quantized_detector.py.
    student, batch = make_student(detector), make_batch(size=128)
    exact = {name: value.detach() for name, value in train_losses(student, batch).items()}
    student = make_student(detector)
    with torch.autocast('cpu', torch.bfloat16):
        losses = train_losses(student, batch)
    assert {losses[name].dtype for name in distill_names(losses)} == {torch.float32}
    torch.testing.assert_close(
        losses['loss_distill_neck'].detach(), exact['loss_distill_neck'], rtol=0.1, atol=0.0)
    sum(losses.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


@pytest.fixture
def one_process_group() -> Iterator[None]:
    torch_dist.init_process_group('gloo', store=torch_dist.HashStore(), rank=0, world_size=1)
    yield
    torch_dist.destroy_process_group()


def test_distributed_training_finds_every_parameter_used(one_process_group):
    alone, wrapped = make_student(), make_student()
    parallel = MMDistributedDataParallel(wrapped, broadcast_buffers=False)
    for model in (alone, parallel):
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in range(2):  # an unused parameter is found in the second step
            logged = model.train_step(make_batch(), optimizer)
    assert 'loss_distill_cls' in logged
    torch.testing.assert_close(dict(wrapped.state_dict()), dict(alone.state_dict()))


def distill_small(*losses: DistillationLoss, teacher: Callable = SmallDetector) -> nn.Module:
    return distill(SmallDetector(), teacher, losses)


def test_losses_must_be_given():
    with pytest.raises(ValueError, match='distillation.losses is empty'):
        distill_small()


def test_a_loss_must_name_a_module():
    with pytest.raises(
            ValueError, match="no module 'necks'; expected the name of one, such as "
            'neck, bbox_head'):
        distill_small(FeatureDistillationLoss('necks'))


def test_a_head_must_classify_by_sigmoid():
    with pytest.raises(ValueError, match='bbox_head is a Conv2d that does not classify by sigmoid'):
        distill_small(OutputDistillationLoss())


def test_a_loss_must_not_have_parameters():
    adapted = FeatureDistillationLoss('neck')
    adapted.adapter = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match='FeatureDistillationLoss has parameters'):
        distill_small(adapted)


def compare(distiller: Distiller, outputs: dict) -> dict:
    return distiller.compare(SmallDetector(), outputs, torch.randn(1, 3, 4, 4))


def test_a_module_that_is_not_called_is_an_error():
    distiller = Distiller(SmallDetector, [FeatureDistillationLoss('spare')])
    with pytest.raises(ValueError, match='spare is not called in the forward pass'):
        compare(distiller, dict(spare=[]))


def test_two_losses_of_one_name_are_an_error():
    distiller = Distiller(SmallDetector, [FeatureDistillationLoss('neck')] * 2)
    with pytest.raises(ValueError, match='Two distillation losses are called loss_distill_neck'):
        compare(distiller, dict(neck=[torch.randn(1, 2, 4, 4)]))


def test_a_teacher_of_other_images_is_an_error():
    distiller = Distiller(lambda: SmallDetector(mean=7.0), [FeatureDistillationLoss('neck')])
    with pytest.raises(
            ValueError,
            match=r"takes images with {'mean': \[7.0\].*the student with "
            r"{'mean': \[0.0\]"):
        compare(distiller, dict(neck=[torch.randn(1, 2, 4, 4)]))
