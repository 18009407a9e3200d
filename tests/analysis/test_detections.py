"""The picture with ground truth and detections side by side."""
import json

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from mmaqd.analysis import plot_detections


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in 'ab':
        imsave(tmp_path / f'{name}.png', rng.random((32, 48, 3)))
    coco = dict(
        images=[dict(id=7, file_name='a.png'),
                dict(id=8, file_name='b.png')],
        categories=[dict(id=1, name='star'), dict(id=2, name='cross')],
        annotations=[
            dict(image_id=7, category_id=1, bbox=[1, 2, 10, 8]),
            dict(image_id=7, category_id=2, bbox=[20, 2, 10, 8])
        ])
    (tmp_path / 'truth.json').write_text(json.dumps(coco))
    results = [
        dict(image_id=7, category_id=2, bbox=[3, 4, 20, 9], score=0.75),
        dict(image_id=7, category_id=1, bbox=[0, 0, 5, 5], score=0.1),
        dict(image_id=8, category_id=1, bbox=[5, 5, 6, 6], score=0.5)
    ]
    (tmp_path / 'model.bbox.json').write_text(json.dumps(results))
    return tmp_path


def draw(folder, image_ids=(7, 8), **kwargs):
    return plot_detections(folder / 'truth.json', folder, {'float': folder / 'model.bbox.json'},
                           image_ids, **kwargs)


def texts(panel):
    return [text.get_text() for text in panel.texts]


def test_one_panel_for_each_image_and_column(folder):
    figure = draw(folder)
    assert [panel.get_title() for panel in figure.axes] == ['ground truth', 'float', '', '']
    assert [texts(panel) for panel in figure.axes] == [['star', 'cross'], ['cross 0.75'], [],
                                                       ['star 0.50']]


def test_boxes_lie_where_the_result_says(folder):
    patches = draw(folder).axes[1].patches
    assert {(*patch.get_xy(), patch.get_width(), patch.get_height())
            for patch in patches} == {(3, 4, 20, 9)}


def test_threshold(folder):
    figure = draw(folder, image_ids=[7], score_threshold=0.05)
    assert texts(figure.axes[1]) == ['cross 0.75', 'star 0.10']


def test_picture_is_saved(folder):
    draw(folder).savefig(folder / 'picture.png')
    assert imread(folder / 'picture.png').std() > 0


@pytest.mark.parametrize('image_ids', [[], [7, 9]])
def test_unknown_images_are_refused(folder, image_ids):
    with pytest.raises(ValueError, match='image_ids'):
        draw(folder, image_ids=image_ids)
