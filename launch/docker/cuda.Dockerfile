# docker build -f launch/docker/cuda.Dockerfile -t $IMAGE .
# The CUDA libraries come with the wheels; the host needs the driver and the container toolkit.
FROM python:3.11-slim
WORKDIR /tga
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "jax[cuda12]==0.10.2"
COPY tga_jax tga_jax
COPY configs configs
# Python is process 1, so that it gets SIGTERM itself.
ENTRYPOINT ["python", "-m", "tga_jax.main"]
