from .algebraformer import Algebraformer as Algebraformer
from .algebraformer import Estimates as Estimates
from .algebraformer import estimates as estimates
from .algebraformer import predict as predict
from .algebraformer import systems_at_once as systems_at_once
from .config import ModelConfig as ModelConfig
