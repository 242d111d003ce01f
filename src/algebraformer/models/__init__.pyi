from .algebraformer import Algebraformer as Algebraformer
from .algebraformer import predict as predict
from .algebraformer import systems_at_once as systems_at_once
from .config import ModelConfig as ModelConfig
