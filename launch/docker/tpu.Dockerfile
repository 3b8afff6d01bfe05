# docker build -f launch/docker/tpu.Dockerfile -t $IMAGE .
FROM python:3.11-slim
WORKDIR /tga
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "jax[tpu]==0.10.2"
COPY tga_jax tga_jax
COPY configs configs
# Python is process 1, so that it gets SIGTERM itself.
ENTRYPOINT ["python", "-m", "tga_jax.main"]
