"""What treescope shows of objects and Variables."""

import jax.numpy as jnp
import pytest

import weft as nnx

# treescope looks at every name of NumPy, deprecated ones included.
treescope_on_the_newest_numpy = pytest.mark.filterwarnings("ignore:.*chararray:DeprecationWarning")


@pytest.fixture
def model():
    return nnx.Dict(layer=nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0)), rate=0.5)


@treescope_on_the_newest_numpy
def test_treescope_shows_objects_and_variables(model):
    treescope = pytest.importorskip("treescope", reason="treescope is not installed")
    text = treescope.render_to_text(model)
    assert "Dict(" in text and "Linear(" in text and "in_features=2" in text
    variable = nnx.Variable({"a": jnp.ones(2)}, tag="t")
    assert "Variable(value={" in treescope.render_to_text(variable).replace("\n", "").replace(
        " ", ""
    )
    assert "tag='t'" in treescope.render_to_text(variable)


@treescope_on_the_newest_numpy
def test_treescope_marks_cycles_and_annotations(model):
    treescope = pytest.importorskip("treescope", reason="treescope is not installed")
    model.itself = model
    assert "Dict(" in treescope.render_to_text(model)

    class Noted:
        def __treescope_repr__(self, path, subtree_renderer):
            return nnx.visualization.render_object_constructor(
                Noted,
                {"a": 1},
                path,
                subtree_renderer,
                first_line_annotation=treescope.rendering_parts.text("  # noted"),
            )

    assert "# noted" in treescope.render_to_html(Noted(), compressed=False)
