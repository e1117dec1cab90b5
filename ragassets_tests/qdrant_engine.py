"""What a Qdrant server does with a request, over the embedded engine; no network.

Requests and answers are qdrant-client's own models. Points, filters and searches are the real
engine's; collections, metadata and aliases are kept here as the server's documentation and source
describe them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models


class EngineError(Exception):
    """A request that the server refuses."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the HTTP status and the text of the answer."""
        self.status, self.message = status, message
        super().__init__(f"{status} {message}")


class Collection:
    """One collection: its settings as the server tells them, and one shard of points."""

    def __init__(self, path: Path, request: models.CreateCollection) -> None:
        """Create the shard."""
        self.path, self.request = path, request
        self.metadata: dict[str, Any] = dict(request.metadata or {})
        self.fields: dict[str, models.PayloadIndexInfo] = {}
        self.status = models.CollectionStatus.GREEN
        self.optimizer_error = ""
        wanted = request.optimizers_config
        self.indexing_threshold = 10_000
        if wanted is not None and wanted.indexing_threshold is not None:
            self.indexing_threshold = wanted.indexing_threshold
        path.mkdir(parents=True)
        self.shard = edge.EdgeShard.create(str(path), _shard_config(request))

    def info(self) -> models.CollectionInfo:
        """The answer to GET /collections/NAME."""
        shard, request = self.shard.info(), self.request
        params = models.CollectionParams(
            vectors=request.vectors,
            sparse_vectors=request.sparse_vectors,
            shard_number=request.shard_number or 1,
            replication_factor=request.replication_factor or 1,
            write_consistency_factor=request.write_consistency_factor or 1,
            on_disk_payload=True,
        )
        config = models.CollectionConfig(
            params=params,
            hnsw_config=models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
            optimizer_config=models.OptimizersConfig(
                deleted_threshold=0.2,
                vacuum_min_vector_number=1000,
                default_segment_number=0,
                indexing_threshold=self.indexing_threshold,
                flush_interval_sec=5,
            ),
            wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            metadata=self.metadata or None,
        )
        error = self.optimizer_error
        return models.CollectionInfo(
            status=self.status,
            optimizer_status=models.OptimizersStatusOneOf1(error=error)
            if error
            else models.OptimizersStatusOneOf.OK,
            indexed_vectors_count=shard.indexed_vectors_count,
            points_count=shard.points_count,
            segments_count=shard.segments_count,
            config=config,
            payload_schema=self.fields,
        )


class Engine:
    """All collections and aliases of one server."""

    def __init__(self, folder: Path) -> None:
        """Keep shards in this folder."""
        self.folder = folder
        self.collections: dict[str, Collection] = {}
        self.alias_targets: dict[str, str] = {}
        self._n_created = 0

    def close(self) -> None:
        """Close all shards."""
        for collection in self.collections.values():
            collection.shard.close()

    # Collections and aliases

    def create(self, name: str, request: models.CreateCollection) -> bool:
        """Create a collection."""
        if name in self.collections or name in self.alias_targets:
            raise EngineError(409, f"Wrong input: Collection `{name}` already exists!")
        self._n_created += 1
        path = self.folder / f"shard-{self._n_created}"
        self.collections[name] = Collection(path, request)
        return True

    def update(self, name: str, request: models.UpdateCollection) -> bool:
        """Change what may change; metadata are merged key by key."""
        collection = self.collection(name)
        collection.metadata |= request.metadata or {}
        if request.params is not None:
            changed = request.params.model_dump(exclude_none=True)
            collection.request = collection.request.model_copy(update=changed)
        for vector, diff in (request.vectors or {}).items():
            collection.request.vectors[vector].on_disk = diff.on_disk
        config = request.optimizers_config
        if config is not None and config.indexing_threshold is not None:
            collection.indexing_threshold = config.indexing_threshold
            collection.shard.optimize()
        return True

    def drop(self, name: str) -> bool:
        """Remove a collection and the aliases that point at it."""
        collection = self.collections.pop(name, None)
        if collection is None:
            return False
        collection.shard.close()
        shutil.rmtree(collection.path)
        self.alias_targets = {a: t for a, t in self.alias_targets.items() if t != name}
        return True

    def change_aliases(self, request: models.ChangeAliasesOperation) -> bool:
        """Do the actions in order; stop at the first that fails, without rolling back."""
        for action in request.actions:
            match action:
                case models.CreateAliasOperation(create_alias=new):
                    if new.collection_name not in self.collections:
                        raise EngineError(404, f"Collection `{new.collection_name}` doesn't exist!")
                    if new.alias_name in self.collections:
                        raise EngineError(409, f"Collection `{new.alias_name}` already exists!")
                    self.alias_targets[new.alias_name] = new.collection_name
                case models.RenameAliasOperation(rename_alias=change):
                    if change.old_alias_name not in self.alias_targets:
                        raise EngineError(404, f"Alias {change.old_alias_name} does not exists!")
                    target = self.alias_targets.pop(change.old_alias_name)
                    self.alias_targets[change.new_alias_name] = target
                case models.DeleteAliasOperation(delete_alias=gone):
                    self.alias_targets.pop(gone.alias_name, None)
        return True

    def collection(self, name: str) -> Collection:
        """A collection by its name or an alias."""
        name = self.alias_targets.get(name, name)
        if name not in self.collections:
            raise EngineError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    # Points

    def create_index(self, name: str, field: str, schema: object) -> None:
        """Index a payload field as keywords."""
        collection = self.collection(name)
        params = schema if isinstance(schema, models.KeywordIndexParams) else None
        kind = edge.KeywordIndexParams(is_tenant=bool(params and params.is_tenant))
        collection.shard.update(edge.UpdateOperation.create_field_index(field, kind))
        info = models.PayloadIndexInfo(
            data_type=models.PayloadSchemaType.KEYWORD, params=params, points=0
        )
        collection.fields[field] = info

    def upsert(self, name: str, points: Sequence[models.PointStruct]) -> None:
        """Write points; like the server, all of them but one with a vector of another size."""
        shard = self.collection(name).shard
        made = [edge.Point(p.id, _vectors(p.vector), p.payload or {}) for p in points]
        try:
            shard.update(edge.UpdateOperation.upsert_points(made))
        except Exception as error:  # the engine raises nothing narrower
            raise EngineError(400, f"Wrong input: {error}") from error
        shard.flush()

    def delete(self, name: str, point_ids: Sequence[Any]) -> None:
        """Remove points."""
        shard = self.collection(name).shard
        shard.update(edge.UpdateOperation.delete_points(list(point_ids)))
        shard.flush()

    def retrieve(
        self, name: str, point_ids: Sequence[Any], payload: Any, vectors: Any = None
    ) -> list[models.Record]:
        """Points by id, with the named vectors where they are asked for."""
        found = self.collection(name).shard.retrieve(
            list(point_ids), with_payload=_payload_selector(payload), with_vector=bool(vectors)
        )
        return [_record(record, vectors or ()) for record in found]

    def scroll(
        self, name: str, *, limit: int, offset: Any, payload: Any
    ) -> tuple[list[models.Record], Any]:
        """One page of points, and where the next one begins."""
        request = edge.ScrollRequest(
            offset=offset, limit=limit, with_payload=_payload_selector(payload)
        )
        found, following = self.collection(name).shard.scroll(request)
        return [_record(r) for r in found], None if following is None else str(following)

    def count(self, name: str, selection: models.Filter | None) -> int:
        """How many points match."""
        request = edge.CountRequest(exact=True, filter=_filter(selection))
        return self.collection(name).shard.count(request)

    def facet(self, name: str, key: str, limit: int) -> list[models.FacetValueHit]:
        """Values of an indexed field with their counts."""
        collection = self.collection(name)
        if key not in collection.fields:
            raise EngineError(400, f"Bad request: Index required but not found for {key}")
        hits = collection.shard.facet(edge.FacetRequest(key, limit=limit)).hits
        return [models.FacetValueHit(value=hit.value, count=hit.count) for hit in hits]

    def query(self, name: str, request: models.QueryRequest) -> list[models.ScoredPoint]:
        """One ranking."""
        nearest = request.query.nearest if hasattr(request.query, "nearest") else request.query
        found = self.collection(name).shard.query(
            edge.QueryRequest(
                limit=request.limit or 10,
                query=edge.Query.Nearest(_vector(nearest), using=request.using),
                filter=_filter(request.filter),
                params=_search_params(request.params),
            )
        )
        return [models.ScoredPoint(id=str(p.id), version=0, score=p.score) for p in found]


def _shard_config(request: models.CreateCollection) -> edge.EdgeConfig:
    dense = {
        name: edge.EdgeVectorParams(
            size=params.size,
            distance=getattr(edge.Distance, params.distance.value),
            quantization_config=_quantization(params.quantization_config),
        )
        for name, params in (request.vectors or {}).items()
    }
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier else None)
        for name, params in (request.sparse_vectors or {}).items()
    }
    return edge.EdgeConfig(vectors=dense, sparse_vectors=sparse or None)


def _quantization(config: Any) -> Any:
    if isinstance(config, models.ScalarQuantization):
        return edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8)
    if isinstance(config, models.BinaryQuantization):
        return edge.BinaryQuantizationConfig()
    return None


def _search_params(params: models.SearchParams | None) -> edge.SearchParams | None:
    if params is None or params.quantization is None:
        return None
    wanted = params.quantization
    return edge.SearchParams(
        exact=bool(params.exact),
        quantization=edge.QuantizationSearchParams(
            ignore=bool(wanted.ignore), rescore=wanted.rescore, oversampling=wanted.oversampling
        ),
    )


def _vectors(vectors: dict[str, Any]) -> dict[str, Any]:
    return {name: _vector(vector) for name, vector in vectors.items()}


def _vector(vector: Any) -> Any:
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(indices=vector.indices, values=vector.values)
    return list(vector)


def _payload_selector(payload: Any) -> Any:
    match payload:
        case models.PayloadSelectorExclude(exclude=keys):
            return edge.PayloadSelector.Exclude(list(keys))
        case models.PayloadSelectorInclude(include=keys):
            return list(keys)
        case _:
            return payload


def _record(record: Any, vectors: Sequence[str] = ()) -> models.Record:
    named = {name: list(record.vector[name]) for name in vectors}
    return models.Record(id=str(record.id), payload=record.payload or {}, vector=named or None)


def _filter(selection: models.Filter | None) -> edge.Filter | None:
    if selection is None:
        return None
    parts = {
        key: [_condition(part) for part in found]
        for key in ("must", "should")
        if (found := getattr(selection, key)) is not None
    }
    return edge.Filter(**parts)


def _condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return _filter(condition)
    if condition.range is not None:
        bounds = edge.RangeFloat(gte=condition.range.gte, lte=condition.range.lte)
        return edge.FieldCondition(condition.key, range=bounds)
    match = condition.match
    wanted = (
        edge.MatchAny(list(match.any))
        if isinstance(match, models.MatchAny)
        else edge.MatchValue(match.value)
    )
    return edge.FieldCondition(condition.key, match=wanted)
