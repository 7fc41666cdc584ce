"""Requests and answers of the API; the OpenAPI description is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Among = Literal["all", "seen", "unseen"]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Asked = Annotated[str, StringConstraints(max_length=1000)]
"""Allowed names."""
LARGEST = 1e12
"""Limit for class values and scores; sums of larger ones could overflow."""
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Values = dict[Asked, Number]
ValuesOrUnknown = dict[Asked, Number | None]


class Sent(BaseModel):
    """A request body; misspelled fields are rejected."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Every answer with a status of 400 or above."""

    error: str = Field(description="what is wrong, in one line")
    hint: str = Field(description="what to do about it")


class Choice(Sent):
    """Candidate classes, and the number of classes to return."""

    top: int = Field(default=5, ge=1, le=1000, description="classes given")
    among: Among = Field(default="all", description="candidate classes: all, seen or unseen")
    only: list[Asked] = Field(default=[], max_length=1000, description="if given, the only candidate classes")
    exclude: list[Asked] = Field(default=[], max_length=1000, description="classes to exclude")
    place: Asked | None = Field(default=None, description="place of the server's prior; default: as it was started")
    month: Asked | None = Field(default=None, description="month of the server's prior: 5, May or any")


class Candidate(BaseModel):
    """A class with the model's confidence."""

    name: str
    seen: bool = Field(description="whether it has training images")
    confidence: float = Field(description="0 to 1; sums to 1 over the candidate classes")
    score: float = Field(description="raw class score")


class Taxon(BaseModel):
    """The likeliest taxon at a rank."""

    rank: str
    name: str
    confidence: float = Field(description="sum of the confidences of its classes")
    probably: str = Field(description="its likeliest class")
    sure: bool = Field(description="whether it can be the answer if the class is unknown")


class Speaks(BaseModel):
    """An attribute that is evidence for the first class."""

    attribute: str
    evidence: float


class Prediction(BaseModel):
    """Prediction for an image, or the reason why there is none; further fields of a prediction have their own names."""

    model_config = ConfigDict(extra="allow")

    image: str = Field(description="file name as sent, without folders")
    classes: list[Candidate] = Field(default=[], description="best first; empty if there is an error")
    unknown: bool = Field(default=False, description="whether the first class's confidence is below the threshold")
    ranks: list[Taxon] = Field(default=[], description="likeliest taxon of each rank, coarsest first")
    attributes: list[Speaks] = []
    used: bool = Field(
        default=False, description="whether it is a support image of a class: its answer measures nothing"
    )
    error: str | None = None
    hint: str | None = None


class Predictions(BaseModel):
    """One entry per image, in the order sent."""

    predictions: list[Prediction]


class Look(Sent):
    """What the model computed from an image: all that ranking needs."""

    attribute_scores: list[Number] = Field(
        description="attribute scores psi, one per attribute, in the order of /api/about"
    )
    query: list[Number] | None = Field(
        default=None, description="embedding of the image, for a model that does not score attributes"
    )
    pooled: list[Number] | None = Field(
        default=None, description="the image's pooled features, which classes with images of their own are ranked by"
    )


class Reason(BaseModel):
    """Contribution of one attribute to a decision."""

    attribute: str
    score: float = Field(description="psi, or its corrected value")
    typical: float = Field(description="mean psi of the training images; 0 if unknown")
    evidence: float = Field(description="(score - typical) * value: contribution to the target's score")
    against: float = Field(description="contribution to the target's lead over the rival")
    value: float = Field(description="value of the target class, as the method uses it")
    rival_value: float
    reading: float | None = Field(
        description="class value that psi corresponds to, or the corrected value; null if unknown"
    )


class ReasonSeen(Reason):
    """The same with a heat map."""

    heat: list[list[int]] = Field(description="rows of 0 to 255 over the crop; 255 is the strongest region")


class Term(BaseModel):
    """Contributions other than attributes, such as a class's own images."""

    name: str
    evidence: float = Field(description="what it adds to the target's score")
    against: float = Field(description="what it adds to the target's lead over the rival")


class Ranking(BaseModel):
    """Classes, and why the target instead of the rival."""

    classes: list[Candidate]
    unknown: bool
    ranks: list[Taxon] = Field(default=[], description="likeliest taxon of each rank, coarsest first")
    answer: str | None = Field(default=None, description="class, taxon or unknown; null if the classes have no ranks")
    answer_rank: str | None = Field(default=None, description='"class", a rank, or empty for unknown')
    why_coarser: list[str] = Field(
        default=[], description="why the answer is a taxon or unknown, in words; empty if a class reaches the threshold"
    )
    without_prior: Candidate | None = Field(default=None, description="first class from the image alone, with a prior")
    prior: float | None = Field(default=None, description="prior probability of the first class, with a prior")
    target: Candidate
    rival: Candidate
    terms: list[Term] = Field(description="parts of score and lead that are not attributes, including gamma")
    reasons: list[Reason] = Field(description="strongest evidence first")


class Near(BaseModel):
    """A training image with similar attribute scores."""

    file: str = Field(description="relative to the folder of the training images")
    name: str = Field(description="its class")
    similarity: float = Field(description="cosine of the standardized attribute scores")
    thumbnail: str | None = Field(description="JPEG as a data URI, if requested and available")


class Explanation(Ranking):
    """A ranking with facts about the image."""

    image: str
    width: int = Field(description="of the upright image, in pixels")
    height: int
    crop: list[float] = Field(description="left, top, right, bottom of the network's input, in pixels")
    look: Look = Field(description="send it to /api/rank")
    reasons: list[ReasonSeen]  # type: ignore[assignment]
    nearest: list[Near] = Field(description="training images, nearest first; empty if unknown")
    preview: str | None = Field(default=None, description="JPEG as a data URI, if requested")


class RankRequest(Choice):
    """A look, with corrected attributes."""

    look: Look
    corrections: Values = Field(default={}, description="attribute to value, in the class table's unit")
    target: Asked | None = Field(default=None, description="class to explain; default: the predicted class")
    rival: Asked | None = Field(default=None, description="class to compare with; default: the best other class")


class ClassEntry(BaseModel):
    """A class of the table."""

    name: str
    seen: bool
    change: str | None = Field(default=None, description="since the training: added, edited, or was NAME")
    former: list[str] | None = Field(default=None, description="former names; left out if none")
    origin: str | None = Field(default=None, description="first name, which stays the same; left out if it is the name")
    expectation: str | None = Field(default=None, description="what the table says about an unseen class")
    ranks: dict[str, str] | None = Field(default=None, description="rank to taxon, coarsest first; left out if none")
    images: int | None = Field(default=None, description="number of support images; left out if none")
    image_weight: float | None = Field(
        default=None, description="share of them in the class score; 1 without attributes"
    )
    thumbnail: str | None = Field(
        default=None, description="address of a small image of it: of the training, else a support image"
    )
    values: Values | None = Field(default=None, description="attribute to value; with /api/classes/NAME only")


class Classes(BaseModel):
    """All classes, in table order."""

    classes: list[ClassEntry]
    outdated: str | None = Field(
        default=None, description="what to do if another process changed them while changes here are unsaved"
    )


class NewClass(Sent):
    """A class to add."""

    name: Name
    like: Asked | None = Field(default=None, description="class to copy values from; otherwise, all values are missing")
    values: ValuesOrUnknown = Field(
        default={}, description="attribute to value, in the class table's unit; null is a missing value"
    )
    ranks: dict[Asked, Asked] = Field(default={}, max_length=50, description="rank to taxon, such as family: Ardeidae")


class ClassChange(Sent):
    """Changes of a class; omitted fields stay."""

    name: Name | None = None
    values: ValuesOrUnknown = {}
    ranks: dict[Asked, Asked] = Field(default={}, max_length=50)


class Changed(BaseModel):
    """Classes added or changed, with notes about them."""

    classes: list[ClassEntry]
    warnings: list[str] = []
    nearest: dict[str, list[str]] = Field(default={}, description="nearest classes of each by attributes")
    saved: bool = Field(description="whether the change is saved with the run")


class FailedImage(BaseModel):
    """An image that could not be read."""

    image: str
    error: str
    hint: str


class ImagesAdded(Changed):
    """A class that got support images."""

    added: list[str] = Field(description="SHA-256 of those added")
    known: list[str] = Field(description="names of those that the class already had, by content")
    failed: list[FailedImage] = Field(description="those left out, unreadable")


class ClassImage(BaseModel):
    """A support image."""

    image: str = Field(description="file name, without folders")
    sha256: str = Field(description="of the file")
    added: str = Field(description="ISO 8601, UTC; images added together have the same time")
    thumbnail: bool = Field(description="whether /api/thumbnails/SHA256 has it")


class ImagesOfClass(BaseModel):
    """The support images of a class, oldest first."""

    name: str
    images: list[ClassImage]


class Divider(BaseModel):
    """An attribute that separates two classes."""

    attribute: str
    first_value: float = Field(description="in the class table's unit")
    second_value: float
    lead: float | None = Field(description="AUROC of the attribute between the two classes; null if unknown")
    auroc: float | None = Field(description="AUROC of its score over the training images")


class Separation(BaseModel):
    """What separates two classes, and what could."""

    first: str
    second: str
    cosine: float = Field(description="of the class vectors")
    today: list[Divider] = Field(description="attributes that separate them, strongest first")
    refine: list[Divider] = Field(description="described alike but well recognized: worth refining")


class AttributeEntry(BaseModel):
    """An attribute, with its description in the class table."""

    name: str
    label: str
    group: str
    part: str
    low: float = Field(description="lowest class value in training, 0 included")
    high: float
    least: float = Field(
        description="smallest valid class value: of a fraction, of a percentage, otherwise of the table"
    )
    most: float
    mean: float = Field(description="mean of the training classes: the value of a missing one")


class Metric(BaseModel):
    """A measured or estimated number in plain words."""

    name: str
    value: float
    low: float | None = Field(description="95 % interval over test images, of an estimate also over classes")
    high: float | None
    meaning: str
    estimated: bool = Field(default=False, description="whether class hold-outs estimate it, for lack of test images")


class Limits(BaseModel):
    """Limits of the server."""

    upload_bytes: int
    image_pixels: int
    images: int
    requests: int


class About(BaseModel):
    """The model, its origin, and the limits for requests."""

    model: str
    method: str
    backbone: str
    data: str
    protocol: str
    version: str
    calibrated: bool
    threshold: float | None = Field(description='confidence below which the answer is "unknown"; null if none')
    no_corrections: str | None = Field(description="why attributes cannot be corrected; null if they can")
    no_images: str | None = Field(description="why classes cannot have support images; null if they can")
    classes: int
    seen: int
    unseen: int
    attributes: list[AttributeEntry]
    template: dict[str, str] = Field(description="the first class as a table for /api/classes")
    metrics: list[Metric]
    limits: Limits
    ranks: list[str] = Field(default=[], description="ranks of the classes, coarsest first")
    places: list[str] = Field(default=[], description="places of the server's prior")
    months: list[int] = Field(default=[], description="months of the server's prior")
    place: str = Field(default="", description="place that counts unless a request names another")
    month: str = Field(default="", description="likewise the month")
    prior: bool = Field(default=False, description="whether the server has a prior")
    can_save: bool = Field(description="whether POST /api/classes/save saves the classes with the run")
    saves: bool = Field(description="whether class changes are saved with the run")


class Health(BaseModel):
    """State and load of the server."""

    status: Literal["ok"]
    busy: int
    places: int


class Table(Sent):
    """Rows for a workbook."""

    columns: list[Asked] = Field(max_length=10_000)
    rows: list[list[str | float | bool | None]] = Field(max_length=200_000)


class Examples(BaseModel):
    """Images to try the model on."""

    examples: list[str] = Field(description="class of each; the images are at /api/examples/0, 1, ...")


class Saved(BaseModel):
    """Where the classes were saved."""

    folder: str
