"""Which of nuScenes' categories a label of py123d's datasets is.

Only where both mean the same: a label that is wider (Waymo's vehicle is a car, a bus or a truck) goes to the category
that most of it is, since those boxes have no other; one that means something else, or a part of it (a cyclist without
the bicycle), keeps its own name and is of no class until `ingest.classes` says so.
"""

from models.names import CATEGORY_TO_CLASS, OTHER_CATEGORIES

# py123d names nuScenes' own after them: VEHICLE_BUS_RIGID.
_NUSCENES = {name.replace(".", "_").upper(): name for name in (*CATEGORY_TO_CLASS, *OTHER_CATEGORIES)}

_CATEGORIES = _NUSCENES | {
    "AUTOMOBILE": "vehicle.car",
    "CAR": "vehicle.car",
    "EGO": "vehicle.ego",
    "REGULAR_VEHICLE": "vehicle.car",
    "TYPE_VEHICLE": "vehicle.car",  # Waymo's: of any kind
    "VEHICLE": "vehicle.car",  # nuPlan's: with four wheels or more
    "BOX_TRUCK": "vehicle.truck",
    "HEAVY_TRUCK": "vehicle.truck",
    "MEDIUM_SIZED_TRUCK": "vehicle.truck",
    "PICKUP_TRUCK": "vehicle.truck",  # as nuScenes counts them
    "SEMI_TRUCK": "vehicle.truck",
    "TRUCK": "vehicle.truck",
    "TRUCK_CAB": "vehicle.truck",
    "ARTICULATED_BUS": "vehicle.bus.bendy",
    "BUS": "vehicle.bus.rigid",
    "SCHOOL_BUS": "vehicle.bus.rigid",
    "TROLLEY_BUS": "vehicle.bus.rigid",
    "VEHICLE_BUS": "vehicle.bus.rigid",
    "OTHER_VEHICLE_CONSTRUCTION_VEHICLE": "vehicle.construction",
    "TOWED_OBJECT": "vehicle.trailer",
    "TRAILER": "vehicle.trailer",
    "VEHICULAR_TRAILER": "vehicle.trailer",
    "MOTORCYCLE": "vehicle.motorcycle",
    "MOTORIZED_SCOOTER": "vehicle.motorcycle",
    "BICYCLE": "vehicle.bicycle",  # nuPlan's: motorcycles too
    "TWO_WHEELER": "vehicle.bicycle",
    "TYPE_CYCLIST": "vehicle.bicycle",  # Waymo's: with the bicycle
    "HUMAN": "human.pedestrian.adult",
    "HUMAN_PEDESTRIAN": "human.pedestrian.adult",
    "OFFICIAL_SIGNALER": "human.pedestrian.adult",
    "PEDESTRIAN": "human.pedestrian.adult",
    "PEDESTRIAN_WITH_OBJECT": "human.pedestrian.adult",
    "PERSON": "human.pedestrian.adult",
    "TYPE_PEDESTRIAN": "human.pedestrian.adult",
    "PERSONAL_MOBILITY_DEVICE": "human.pedestrian.personal_mobility",
    "WHEELED_RIDER": "human.pedestrian.personal_mobility",
    "STROLLER": "human.pedestrian.stroller",
    "WHEELCHAIR": "human.pedestrian.wheelchair",
    "BARRIER": "movable_object.barrier",
    "ROAD_BARRIERS": "movable_object.barrier",
    "TEMPORARY_CONSTRUCTION_BARRIERS": "movable_object.barrier",
    "CONES": "movable_object.trafficcone",
    "CONSTRUCTION_CONE": "movable_object.trafficcone",
    "CONSTRUCTION_TRAFFIC_CONE": "movable_object.trafficcone",
    "OTHER_TRAFFICCONE": "movable_object.trafficcone",
    "PYLONS": "movable_object.trafficcone",
    "TRAFFIC_CONE": "movable_object.trafficcone",
    "ROLLING_CONTAINERS": "movable_object.pushable_pullable",
    "ANIMALS_BIRD": "animal",
    "ANIMALS_OTHER": "animal",
    "DOG": "animal",
}


def category_of(label: str) -> str:
    """The category of a label's name in py123d; its own name in small letters where nuScenes has none for it."""
    return _CATEGORIES.get(label, label.lower())
