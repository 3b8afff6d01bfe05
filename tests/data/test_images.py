import io

import numpy as np
import pytest
from PIL import Image

from tga_jax.data import images
from tga_jax.data.images import ImageTransform, decode_image, load_image, load_pixels, resolve_image
from tga_jax.errors import UserError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(90, 40), (40, 90), (64, 64), (3, 5), (1, 7), (337, 335), (31, 200)]


def make_transform(**changes):
    fields = {
        "shortest_edge": 48,
        "resize": None,
        "crop": (48, 48),
        "resample": 3,
        "pad_to_square": False,
        "mean": MEAN,
        "std": STD,
        "rescale": 1 / 255,
    }
    return ImageTransform(**{**fields, **changes})


def make_image(width, height, *, mode="RGB"):
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def normalised(transform, image):
    pixels = transform(image).astype(np.float32) * np.float32(transform.rescale)
    pixels = (pixels - np.float32(transform.mean)) / np.float32(transform.std)
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"crop": (33, 60)}, {"crop_size": {"height": 33, "width": 60}}),
        ({"pad_to_square": True}, {"do_pad": True}),
        (
            {"shortest_edge": None, "resize": (30, 50), "crop": None},
            {"size": {"height": 30, "width": 50}, "do_center_crop": False},
        ),
        ({"shortest_edge": None}, {"do_resize": False}),
        ({"resample": 2}, {"resample": 2}),
    ],
)
def test_pixels_equal_transformers(size, mode, ours, theirs):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    settings = {
        "size": {"shortest_edge": 48},
        "crop_size": {"height": 48, "width": 48},
        "image_mean": list(MEAN),
        "image_std": list(STD),
        **theirs,
    }
    oracle = LlavaImageProcessorPil if "do_pad" in theirs else CLIPImageProcessorPil
    image = make_image(*size, mode=mode)
    expected = oracle(**settings)(image, return_tensors="np")["pixel_values"][0]
    ours = normalised(make_transform(**ours), image.convert("RGB"))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_square_padding_is_llavas_expand2square(size):
    """Oracle: LLaVA pastes onto a new square image of the colour int(mean * 255)."""
    image = make_image(*size)
    width, height = size
    colour = tuple(int(x * 255) for x in MEAN)
    expected = Image.new("RGB", (max(size), max(size)), colour)
    if width > height:
        expected.paste(image, (0, (width - height) // 2))
    else:
        expected.paste(image, ((height - width) // 2, 0))
    edge = max(size)
    same_size = make_transform(shortest_edge=edge, crop=None, pad_to_square=True)
    np.testing.assert_array_equal(same_size(image), np.asarray(expected))
    assert same_size.size == (edge, edge)


def test_blank_is_the_mean_colour_in_the_final_size():
    blank = make_transform(crop=(20, 30)).blank()
    assert blank.shape == (20, 30, 3) and blank.dtype == np.uint8
    assert (blank == [122, 116, 104]).all()


def test_a_transform_must_give_one_size():
    with pytest.raises(UserError, match="differ in size"):
        make_transform(crop=None)


def save(path, image, **kwargs):
    image.save(path, **kwargs)
    return path


def test_every_kind_of_image_becomes_rgb(tmp_path):
    def load(name, image, **kwargs):
        loaded = load_image(save(tmp_path / name, image, **kwargs), record_id="1")
        assert loaded.mode == "RGB"
        return np.asarray(loaded)

    rgba, grey = make_image(20, 10, mode="RGBA"), make_image(20, 10, mode="L")
    palette = Image.new("P", (20, 10), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    # Transparency is dropped: the colours under it stay.
    np.testing.assert_array_equal(load("alpha.png", rgba), np.asarray(rgba)[..., :3])
    np.testing.assert_array_equal(load("grey.png", grey), np.stack([np.asarray(grey)] * 3, -1))
    np.testing.assert_array_equal(load("bits.png", Image.new("1", (20, 10), 1)), 255)
    np.testing.assert_array_equal(load("p.png", palette)[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(load("pt.png", palette, transparency=b"\0\1")[0, 0], [10, 20, 30])
    np.testing.assert_allclose(
        load("cmyk.jpg", Image.new("CMYK", (20, 10), (0, 255, 255, 0))), [[[255, 0, 0]] * 20] * 10
    )


def test_an_animation_with_a_wrong_name_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    gif = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    loaded = load_image(gif.rename(tmp_path / "really_a_gif.jpg"), record_id="1")
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(frames[0]))


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    path = save(tmp_path / "turned.png", make_image(20, 10), exif=exif)
    assert load_image(path, record_id="1").size == (20, 10)


def png_bytes(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not a readable image \(of no known format\)"),
        (b"<html>404</html>", r"not a readable image \(of no known format\)"),
        (png_bytes(make_image(64, 64))[:-4000], "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a readable"),
        (png_bytes(Image.new("1", (20_000, 6_000))), "the image is too large"),
        (png_bytes(Image.new("1", (60_000, 6_000))), "the image is too large"),
    ],
)
def test_broken_images_are_named(tmp_path, recwarn, content, message):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"record r7: image .*bad.jpg: {message}") as error:
        load_image(path, record_id="r7")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError) as in_memory:
        decode_image(io.BytesIO(content), where=f"record r7: image {path}")
    assert str(in_memory.value) == str(error.value)


def test_a_long_thin_image_does_not_blow_up(tmp_path):
    save(tmp_path / "thin.png", Image.new("L", (1, 60_000)))
    with pytest.raises(UserError, match="record r7: image .*thin.png: it is too long or too wide"):
        load_pixels(tmp_path, "thin.png", transform=make_transform(), record_id="r7")


@pytest.fixture
def image_dir(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "a").mkdir(parents=True)
    for path in (folder / "a" / "x.png", folder / "y.png", tmp_path / "secret.png"):
        save(path, make_image(4, 4))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to(folder / "y.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "up").symlink_to(tmp_path)
    return folder


@pytest.mark.parametrize("name", ["a/x.png", "y.png", "inside.png", "./y.png"])
def test_names_inside_the_folder(image_dir, name):
    assert resolve_image(image_dir, name, record_id="1") == image_dir / name


def test_an_absolute_path_inside_the_folder_is_a_name_in_it(image_dir, tmp_path, monkeypatch):
    path = image_dir / "a" / "x.png"
    assert resolve_image(image_dir, str(path), record_id="1") == path
    (tmp_path / "link").symlink_to(image_dir)
    for name in (path, tmp_path / "link" / "a" / "x.png"):
        found = resolve_image(tmp_path / "link", str(name), record_id="1")
        assert found == tmp_path / "link" / "a" / "x.png"
    monkeypatch.chdir(tmp_path)
    assert resolve_image("pictures", str(path), record_id="1").samefile(path)
    for name, message in (
        (tmp_path / "secret.png", "must be a name inside"),
        (image_dir / ".." / "secret.png", "must be a name inside"),
        (image_dir, "must be a name inside"),
        (tmp_path / "pictures2" / "y.png", "must be a name inside"),
        (image_dir / "out.png", "leaves the image folder"),
        (image_dir / "none.png", "no such file"),
    ):
        with pytest.raises(UserError, match=f"record r7: image .*({message})"):
            resolve_image(image_dir, str(name), record_id="r7")


def test_the_folder_itself_may_be_a_link(image_dir, tmp_path):
    (tmp_path / "link").symlink_to(image_dir)
    assert resolve_image(tmp_path / "link", "y.png", record_id="1").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "must be a name inside"),
        ("../secret.png", "must be a name inside"),
        ("a/../y.png", "must be a name inside"),
        ("", "must be a name inside"),
        ("a\0b", "must be a name inside"),
        ("out.png", "leaves the image folder"),
        ("up/secret.png", "leaves the image folder"),
        ("none.png", "no such file"),
        ("a", "no such file"),
        ("loop.png", "cannot be opened|no such file"),
        ("x" * 5000, "cannot be opened|no such file"),
    ],
)
def test_names_that_are_refused(image_dir, name, message):
    with pytest.raises(UserError, match=f"record r7: image .*({message})"):
        resolve_image(image_dir, name, record_id="r7")


def test_the_limit_is_on_pixels(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", make_image(20, 10))
    monkeypatch.setattr(images, "MAX_PIXELS", 200)
    load_image(path, record_id="1")
    monkeypatch.setattr(images, "MAX_PIXELS", 199)
    with pytest.raises(UserError, match="too large"):
        load_image(path, record_id="1")


def deep_images():
    """(name, image, its RGB): values of more than 8 bits, scaled by their range."""
    ramp = np.arange(64 * 64).reshape(64, 64)
    sixteen = (ramp * 16 + ramp // 256).astype(np.uint16)
    signed = (ramp - 2000).astype(np.int32)
    broken = (ramp / 4095).astype(np.float32)
    broken[0, :2] = np.nan, np.inf
    return [
        ("16.png", sixteen, sixteen / 257),
        ("16.tif", sixteen, sixteen / 257),
        ("dark.png", (ramp // 16).astype(np.uint16), ramp // 16),
        ("32.tif", signed, (signed + 2000) * 255 / 4095),
        ("unit.tif", (ramp / 4095).astype(np.float32), ramp * 255 / 4095),
        ("byte.tif", (ramp / 16.1).astype(np.float32), ramp / 16.1),
        ("any.tif", (ramp - 7.5).astype(np.float32) * 100, ramp * 255 / 4095),
        ("one.tif", np.full((4, 4), -3, np.float32), np.zeros((4, 4))),
        ("nan.tif", broken, np.where(np.isfinite(broken), broken, 0) * 255),
    ]


@pytest.mark.parametrize("number", range(9))
def test_values_of_more_than_8_bits_are_scaled(tmp_path, number):
    name, values, wanted = deep_images()[number]
    Image.fromarray(values).save(tmp_path / name)
    pixels = np.asarray(load_image(tmp_path / name, record_id="x"))
    assert pixels.shape == (*values.shape, 3)
    for channel in range(3):
        np.testing.assert_allclose(pixels[..., channel], wanted, atol=0.51)
    assert images.check_image(tmp_path / name, where="x") == (True, values.shape)


def test_images_of_8_bits_are_not_called_deep(tmp_path):
    for mode in ("RGB", "L", "1", "P", "CMYK", "LA", "RGBA"):
        make_image(9, 9).convert(mode).save(tmp_path / f"{mode}.tif")
        assert not images.check_image(tmp_path / f"{mode}.tif", where="x")[0]
